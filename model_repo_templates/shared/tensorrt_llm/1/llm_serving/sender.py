"""The thread that turns the engine's chunks into responses, off the engine's own thread.

The engine only puts each step's chunks into a queue. Text goes out at once while few streams
run; when many do, the tokens of one request are merged, so that streaming keeps to its share
of the processor (see :class:`Streaming` in settings.py).
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import triton_python_backend_utils as pb_utils

from . import responses
from .engine_api import TokenChunk
from .settings import Streaming
from .stream import Stream

_SLACK = 1.5
"""Text waits for the next chunk up to this many gaps, so that timers rarely fire."""


class Totals:
    """Counts over all finished requests, for metrics."""

    def __init__(self) -> None:
        self.finished: Counter[str] = Counter()
        self.input_tokens = 0
        self.output_tokens = 0
        self.cached_tokens = 0

    def add(self, stream: Stream) -> None:
        """Count a finished request."""
        self.finished[stream.finish or "error"] += 1
        self.input_tokens += stream.prompt_tokens
        self.output_tokens += stream.output_tokens
        self.cached_tokens += stream.usage.cached_tokens


class Sender:
    """Owns the open streams and sends for them."""

    def __init__(
        self,
        streaming: Streaming,
        cancel: Callable[[int], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._per_second = streaming.responses_per_core * len(os.sched_getaffinity(0))
        self._cancel = cancel
        self._on_failure = on_failure
        self._inbox: queue.SimpleQueue[list[TokenChunk] | None] = queue.SimpleQueue()
        self._pending: dict[int, Stream] = {}
        self._flowing: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self.streams: dict[int, Stream] = {}
        self.totals = Totals()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, chunks: list[TokenChunk]) -> None:
        """Take the chunks of one engine step; returns at once."""
        self._inbox.put(chunks)

    def open(self, stream: Stream) -> None:
        """Expect chunks for ``stream``."""
        self.streams[stream.request_id] = stream

    def drop(self, stream: Stream) -> None:
        """Forget a stream that the engine refused; its caller sends the only response."""
        self.streams.pop(stream.request_id, None)
        stream.close(lambda: None)

    def close(self) -> None:
        """Send what the inbox holds, then end the thread."""
        self._inbox.put(None)
        self._thread.join()

    def fail_all(self, message: str) -> None:
        """Answer every open request with an error. Any thread may call this."""
        for stream in list(self.streams.values()):
            error = partial(
                responses.send_error, stream.handle, message, pb_utils.TritonError.UNAVAILABLE
            )
            with suppress(pb_utils.TritonModelException):
                stream.close(error)
        self.streams.clear()

    def _run(self) -> None:
        try:
            open_still = True
            while open_still:
                open_still = self._take()
                self._send_due()
        except BaseException as error:
            self._on_failure(error)

    def _take(self) -> bool:
        """Wait for chunks, or until text has waited long enough; False: closed."""
        try:
            chunks = self._inbox.get(timeout=self._patience())
            while chunks is not None:
                for chunk in chunks:
                    self._feed(chunk)
                chunks = self._inbox.get_nowait()
        except queue.Empty:
            return True
        return False

    def _patience(self) -> float | None:
        if not self._pending:
            return None
        oldest = min(stream.last_sent for stream in self._pending.values())
        return max(0.0, oldest + _SLACK * self._gap() - time.monotonic())

    def _feed(self, chunk: TokenChunk) -> None:
        stream = self.streams.get(chunk.request_id)
        if stream is None:
            return
        if stream.feed(chunk):
            self._cancel(stream.request_id)
        if stream.wishes.stream:
            self._flowing.add(stream.request_id)
        if stream.finish or (stream.wishes.stream and stream.has_output):
            self._pending[stream.request_id] = stream

    def _gap(self) -> float:
        """Seconds between two responses of one stream, if all that flow share the bound."""
        return len(self._flowing) / self._per_second if self._per_second else 0.0

    def _send_due(self) -> None:
        latest = time.monotonic() - self._gap()
        for stream in list(self._pending.values()):
            if stream.finish:
                self._finish(stream)
            elif stream.last_sent <= latest:
                self._send(stream)

    def _send(self, stream: Stream) -> None:
        del self._pending[stream.request_id]
        stream.last_sent = time.monotonic()
        try:
            responses.send_text(stream)
        except pb_utils.TritonModelException:
            # The server has given the request up; nobody waits for the rest.
            self._forget(stream)
            self._cancel(stream.request_id)

    def _finish(self, stream: Stream) -> None:
        del self._pending[stream.request_id]
        self._forget(stream)
        self.totals.add(stream)
        try:
            stream.close(lambda: _answer(stream))
        except pb_utils.TritonModelException as error:
            pb_utils.Logger.log_warn(f"request {stream.request_id}: not sent: {error}")

    def _forget(self, stream: Stream) -> None:
        self.streams.pop(stream.request_id, None)
        self._flowing.discard(stream.request_id)


def _answer(stream: Stream) -> None:
    codes = pb_utils.TritonError
    if stream.finish == "cancelled":
        responses.send_error(stream.handle, "request cancelled", codes.CANCELLED)
    elif stream.finish == "error":
        message = stream.error or "the engine failed"
        responses.send_error(stream.handle, message, codes.UNAVAILABLE)
    elif stream.finish == "deadline" and not stream.output_tokens:
        message = "deadline_ms: passed before the first token; retry later or allow more time"
        responses.send_error(stream.handle, message, codes.UNAVAILABLE)
    else:
        responses.send_final(stream)
