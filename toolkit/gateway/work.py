"""What passes between the API and the engines: one sequence to generate, and its pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "deadline"]
GuideKind = Literal["json", "json_schema", "regex", "ebnf_grammar"]


@dataclass(frozen=True, slots=True)
class Guide:
    """What the text must match; ``text`` is empty for any JSON."""

    kind: GuideKind
    text: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; None leaves it to the engine's default.

    Greedy decoding is ``temperature=0``. ``stop`` texts end the answer and are not part of it.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    log_probs: bool = False
    guide: Guide | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """One sequence to generate.

    ``tokens`` are those of ``prompt``, special ones included if ``add_special_tokens``; they
    decide size and prefix. ``owner`` is the API key's id, empty without keys.
    """

    id: str
    model: str
    prompt: str
    tokens: tuple[int, ...]
    sampling: Sampling
    request_class: str
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    deadline_s: float | None = None
    owner: str = ""
    trace_parent: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one finished sequence.

    ``cached`` prompt tokens came from the KV cache; None where the engine does not say.
    """

    prompt: int
    completion: int
    cached: int | None = None
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that has come since the last piece.

    With log probabilities there is one natural logarithm and one id for each new token.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Final(Piece):
    """The last piece."""

    finish_reason: FinishReason = "stop"
    stop_reason: str | None = None
    usage: Usage = field(default_factory=lambda: Usage(0, 0))


class GatewayError(Exception):
    """What a client is told instead of an answer, in OpenAI's terms.

    Args:
        status: HTTP status.
        message: One line: what is wrong and what to change.
        kind: OpenAI's ``type``, such as ``invalid_request_error``.
        code: OpenAI's ``code``, such as ``context_length_exceeded``.
        param: The request's field.
        retry_after_s: When to come back, for 429 and 503.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s


class Generator(Protocol):
    """Runs work: the dispatcher in production, anything that answers in a test."""

    def generate(self, work: Work) -> AsyncGenerator[Piece, None]:
        """Pieces of the answer, the last one a :class:`Final`.

        Closing the generator takes the request back, from the queue or from the engine.

        Raises:
            GatewayError: refused, or failed; before the first piece the status is the answer's.
        """
