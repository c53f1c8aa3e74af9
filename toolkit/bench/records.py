"""What one request asks for, and what was seen of it from outside.

All times are ``time.perf_counter()`` seconds of the client.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

clock = time.perf_counter
"""The clock of every record."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; ``temperature`` 0 is greedy. ``None`` leaves it to the server."""

    temperature: float | None = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to send.

    ``intended`` is when the load asks for it to start: latencies count from there, not from
    when the client got round to sending it, so a stalled client or server cannot hide the
    requests that it delayed (coordinated omission). ``min_tokens`` is how many tokens have to
    come before the model may stop (None: it may stop at once).
    """

    number: int
    prompt: str
    max_tokens: int
    intended: float
    min_tokens: int | None = None
    session: int = 0
    turn: int = 0
    request_class: str = ""
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Usage:
    """What the server says on the final response; None where it does not say.

    ``cached_tokens`` of ``prompt_tokens`` came from the KV cache; ``draft_tokens`` were
    proposed by speculation and ``accepted_draft_tokens`` of them confirmed.
    """

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    queue_time_ms: float | None = None
    ttft_ms: float | None = None
    draft_tokens: int | None = None
    accepted_draft_tokens: int | None = None
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request did not complete.

    ``kind`` groups failures: ``connection`` (no or broken connection), ``timeout`` (the
    client's own), ``refused`` (the server says that the request is wrong), ``overload`` (the
    server says that it is full), ``server`` (any other error from the server), ``protocol``
    (an answer that breaks the contract, such as a stream that ends without a final response).
    """

    kind: str
    message: str


@dataclass(slots=True)
class RequestRecord:
    """A request as the client saw it.

    ``responses`` are the arrival times of the responses that carried text. A response may
    carry several tokens, so their number is not the number of tokens.
    """

    request: Request
    sent: float = 0.0
    ended: float = 0.0
    responses: list[float] = field(default_factory=list)
    text: str = ""
    usage: Usage = Usage()
    failure: Failure | None = None
    counted_tokens: int | None = None

    @property
    def ok(self) -> bool:
        """Whether it completed without an error."""
        return self.failure is None

    @property
    def first(self) -> float | None:
        """When its first text arrived; the end of a completed request that had none."""
        if self.responses:
            return self.responses[0]
        return self.ended if self.ok else None

    @property
    def output_tokens(self) -> int:
        """Tokens generated: by the server's count, a tokenizer's, or else one a response."""
        if self.usage.output_tokens is not None:
            return self.usage.output_tokens
        if self.counted_tokens is not None:
            return self.counted_tokens
        return len(self.responses)

    def fail(self, kind: str, message: str) -> None:
        """Mark it as failed now, unless it already ended."""
        if not self.ended:
            self.failure = Failure(kind, message)
            self.ended = clock()

    def complete(self, when: float, usage: Usage) -> None:
        """Mark it as completed at ``when``."""
        if not self.ended:
            self.usage = usage
            self.ended = when
