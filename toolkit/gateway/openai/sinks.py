"""Where pieces go: to the client at once, or together at the end."""

from __future__ import annotations

from collections.abc import Callable

from toolkit.gateway.openai.errors import error_body
from toolkit.gateway.openai.exchange import EVENTS, ClientTooSlow, Exchange
from toolkit.gateway.openai.frames import Frames, error_event
from toolkit.gateway.openai.job import Job
from toolkit.gateway.openai.outlet import Outlet
from toolkit.gateway.openai.reading import merged
from toolkit.gateway.work import Final, GatewayError, Piece

_NO_CACHE = (b"cache-control", b"no-cache")
_NO_BUFFERING = (b"x-accel-buffering", b"no")
_TOKEN_BYTES = 24
"""What the log probability of one token takes while it waits."""
_MERGED_AT = 128
"""Pieces that wait before they become one: an object each would take more than their text."""


class Tally:
    """How far each sequence of a request has come."""

    def __init__(self, job: Job) -> None:
        self.finals: list[Final | None] = [None] * len(job.works)
        self.pieces = [0] * len(job.works)

    def completion_tokens(self) -> int:
        """Tokens so far; a sequence that has not ended counts one a piece, which is the least."""
        pairs = zip(self.finals, self.pieces, strict=True)
        return sum(final.usage.completion if final else count for final, count in pairs)


class WholeSink:
    """Gathers whole answers."""

    complete = False

    def __init__(self, job: Job, tally: Tally) -> None:
        self._tally = tally
        self._pieces: list[list[Piece]] = [[] for _ in job.works]

    def piece(self, index: int, piece: Piece) -> None:
        """See :class:`~toolkit.gateway.openai.running.Sink`."""
        self._tally.pieces[index] += 1
        self._pieces[index].append(piece)
        if isinstance(piece, Final):
            self._tally.finals[index] = piece

    def answers(self) -> list[Final]:
        """The whole answers, once all have ended."""
        whole = [merged(pieces) for pieces in self._pieces]
        return [each for each in whole if isinstance(each, Final)]


class StreamSink:
    """Sends pieces as they come; while the client does not read, they are merged.

    What waits for one client takes at most twice ``max_buffer`` (what is kept, and what has been
    made of it for the server) and the server's own
    :data:`~toolkit.gateway.openai.protocol.WRITE_BUFFER`; one that leaves more is let go.

    Args:
        exchange: The way to the client.
        tally: How far it has come.
        frames: How it is written.
        fail: Ends the run: the client is given up.
    """

    def __init__(
        self,
        exchange: Exchange,
        tally: Tally,
        frames: Frames,
        fail: Callable[[Exception], None],
    ) -> None:
        self._tally = tally
        self.complete = False
        self._exchange = exchange
        self._frames = frames
        self._fail = fail
        self._open = len(tally.finals)
        self._kept: dict[int, list[Piece]] = {}
        self._kept_bytes = 0
        self._error: GatewayError | None = None
        self._outlet = Outlet(
            exchange.send,
            stall_timeout=exchange.settings.stall_timeout,
            on_ready=self._flush,
            on_stuck=fail,
        )

    def piece(self, index: int, piece: Piece) -> None:
        """See :class:`~toolkit.gateway.openai.running.Sink`."""
        self._tally.pieces[index] += 1
        if isinstance(piece, Final):
            self._tally.finals[index] = piece
            self._open -= 1
        if not self._exchange.started:
            self._outlet.message(self._exchange.head(200, EVENTS, _NO_CACHE, _NO_BUFFERING))
        if not self._outlet.ready:
            self._keep(index, piece)
        elif self._open:
            if frame := self._frames.frame(index, piece):
                self._outlet.send(frame)
        else:
            self._finish(self._frames.frame(index, piece))

    def error(self, error: GatewayError) -> None:
        """Tell of an error after the answer has begun, and end it."""
        self._error = error
        if self._outlet.ready:
            self._flush()

    async def drained(self) -> None:
        """Wait until the server has taken all that was sent."""
        await self._outlet.drained()

    def close(self) -> None:
        """Nothing is sent any more."""
        self._outlet.close()

    def _keep(self, index: int, piece: Piece) -> None:
        kept = self._kept.setdefault(index, [])
        kept.append(piece)
        if len(kept) >= _MERGED_AT:
            kept[:] = [merged(kept)]
        self._kept_bytes += len(piece.text.encode()) + _TOKEN_BYTES * len(piece.log_probs)
        if self._kept_bytes > self._exchange.settings.max_buffer:
            self._fail(ClientTooSlow(f"left {self._kept_bytes} bytes unread"))

    def _flush(self) -> None:
        frames = b"".join(
            [self._frames.frame(index, merged(kept)) for index, kept in self._kept.items()]
        )
        self._kept, self._kept_bytes = {}, 0
        if self._error is not None or not self._open:
            self._finish(frames)
        elif frames:
            self._outlet.send(frames)

    def _finish(self, frames: bytes) -> None:
        if self.complete:
            return
        self.complete = True
        if self._error is not None:
            frames += error_event(error_body(self._error))
        else:
            frames += self._frames.tail(self._tally.finals)
        self._outlet.message({"type": "http.response.body", "body": frames, "more_body": False})
