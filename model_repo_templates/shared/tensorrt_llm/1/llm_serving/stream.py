"""One request on its way: from the engine's tokens to text that may go out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from .detokenizer import Detokenizer
from .engine_api import FinishReason, TokenChunk, Usage
from .request import ParsedRequest
from .stop_words import StopWords
from .tokenizer import TextTokenizer


class Waiting(NamedTuple):
    """What has not been sent yet; tokens only where log probabilities were asked for."""

    text: str
    tokens: list[int]
    log_probs: list[float]


class Stream:
    """Gathers what one request has produced and not sent yet.

    ``handle`` is the server's response sender, ``client_id`` the id that the client gave,
    ``outputs`` the names that it asked for (none: all there are).
    Only the sender thread touches a stream once it is open, but for :meth:`cancelled` and
    :meth:`close`.
    """

    def __init__(
        self,
        request_id: int,
        parsed: ParsedRequest,
        tokenizer: TextTokenizer,
        handle: Any,
        client_id: str = "",
        outputs: Collection[str] = (),
    ) -> None:
        self.request_id = request_id
        self.client_id = client_id
        self.handle = handle
        self._outputs = frozenset(outputs)
        self.wishes = parsed.wishes
        self.prompt_tokens = len(parsed.prompt)
        self._detokenizer = Detokenizer(
            tokenizer,
            skip_special_tokens=parsed.wishes.skip_special_tokens,
            continues=bool(parsed.wishes.echo),
        )
        self._stop_words = StopWords(parsed.wishes.stop_words)
        self._text = [parsed.wishes.echo]
        self._tokens: list[int] = []
        self._log_probs: list[float] = []
        self.cumulative_log_prob = 0.0
        self.output_tokens = 0
        self.stop_word: str | None = None
        self.finish: FinishReason | None = None
        self.usage = Usage()
        self.error = ""
        self.last_sent = float("-inf")
        self._closing = threading.Lock()
        self._closed = False

    def feed(self, chunk: TokenChunk) -> bool:
        """Take one chunk in; True if a stop word says that the engine may end now."""
        stopped_before = self.stop_word is not None
        if not stopped_before:
            self._take_tokens(chunk)
        if chunk.finish is not None:
            self.finish = "stop" if self.stop_word is not None else chunk.finish
            self.usage = chunk.usage or self.usage
            self.error = chunk.error
            return False
        return self.stop_word is not None and not stopped_before

    @property
    def has_output(self) -> bool:
        """Whether something waits to be sent."""
        return self.finish is not None or any(self._text)

    def take(self) -> Waiting:
        """What waits, which is then gone from here."""
        waiting = Waiting("".join(self._text), self._tokens, self._log_probs)
        self._text, self._tokens, self._log_probs = [], [], []
        return waiting

    def wants(self, output: str) -> bool:
        """Whether the client asked for ``output``; it gets all that it does not name."""
        return not self._outputs or output in self._outputs

    def cancelled(self) -> bool:
        """Ask the server whether the client has gone.

        Never after the last response: the server has freed then what the question needs.
        """
        with self._closing:
            return not self._closed and bool(self.handle.is_cancelled())

    def close(self, answer: Callable[[], None]) -> None:
        """Send the last response by calling ``answer``, unless one was sent already."""
        with self._closing:
            if not self._closed:
                self._closed = True
                answer()
                # The server keeps its model loaded for as long as this object is alive.
                self.handle = None

    def _take_tokens(self, chunk: TokenChunk) -> None:
        final = chunk.finish is not None
        found = self._stop_words.feed(
            self._detokenizer.feed(chunk.tokens, final=final), final=final
        )
        self._text.append(found.text)
        self.stop_word = found.stop_word
        self.output_tokens += len(chunk.tokens)
        if chunk.log_probs:
            self._tokens += chunk.tokens
            self._log_probs += chunk.log_probs
            self.cumulative_log_prob += sum(chunk.log_probs)
