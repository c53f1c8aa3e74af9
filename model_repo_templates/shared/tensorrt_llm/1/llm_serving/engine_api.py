"""What the python-backend model asks of an engine, in token ids.

One adapter per engine implements :class:`Engine`; everything about text, tensors and Triton
stays on this side of it. Times are ``time.monotonic()`` seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]

GUIDES = ("json", "json_schema", "regex", "ebnf_grammar")
"""Kinds of guide, as NVIDIA's ``guided_decoding_guide_type`` names them."""


class QueueFullError(Exception):
    """No place is left to wait in; the client may retry."""


class RequestRefusedError(Exception):
    """The engine cannot serve this request; the message names the field."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. ``temperature`` 0 is greedy."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    log_probs: bool = False


@dataclass(frozen=True, slots=True)
class Guide:
    """What an answer has to keep to; ``kind`` is one of :data:`GUIDES`."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt to continue. A smaller ``priority`` number is served first.

    Without ``stream`` nobody looks at tokens before the last one. ``adapter`` names a LoRA
    adapter, ``draft_tokens`` is how many tokens a draft may propose at once (None: the
    deployment's own number).
    """

    request_id: int
    prompt: tuple[int, ...]
    sampling: Sampling
    priority: int = 0
    deadline: float | None = None
    stream: bool = True
    adapter: str | None = None
    guide: Guide | None = None
    draft_tokens: int | None = None


@dataclass(slots=True)
class Usage:
    """What one request cost, complete when it has finished.

    ``draft_tokens`` counts proposed ones, ``accepted_draft_tokens`` those that the target
    confirmed; ``kv_blocks_reused`` of ``kv_blocks_total`` prompt blocks came from the cache.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    kv_blocks_reused: int = 0
    kv_blocks_total: int = 0
    draft_tokens: int = 0
    accepted_draft_tokens: int = 0
    preemptions: int = 0
    arrived: float = 0.0
    first_scheduled: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0


@dataclass(slots=True)
class TokenChunk:
    """New tokens of one request since its last chunk; the last one carries ``finish``."""

    request_id: int
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None
    usage: Usage | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine as it stands; counters run since the start."""

    running: int = 0
    waiting: int = 0
    max_batch_size: int = 0
    context_requests: int = 0
    generation_requests: int = 0
    context_tokens: int = 0
    blocks_max: int = 0
    blocks_used: int = 0
    blocks_free: int = 0
    tokens_per_block: int = 0
    blocks_reused_total: int = 0
    blocks_looked_up_total: int = 0
    draft_tokens_total: int = 0
    accepted_draft_tokens_total: int = 0
    preemptions_total: int = 0
    iterations: int = 0
    memory_bytes: int = 0
    paused: int = 0
    gpu_memory_bytes: int = 0
    pinned_memory_bytes: int = 0


class Engine(Protocol):
    """A continuous-batching engine with a thread of its own."""

    def start(self, on_chunks: Callable[[list[TokenChunk]], None]) -> None:
        """Start the engine's thread; it hands every step's chunks to ``on_chunks``.

        ``on_chunks`` has to return at once: it runs on the engine's thread.
        """

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request. Thread-safe.

        Raises:
            QueueFullError: as many wait as the deployment allows.
            RequestRefusedError: the prompt does not fit the limits, or a field is not supported.
        """

    def cancel(self, request_id: int) -> None:
        """End a request at the next step; its last chunk says ``cancelled``. Thread-safe."""

    def stats(self) -> EngineStats:
        """A snapshot for metrics. Thread-safe."""

    def close(self) -> None:
        """End running requests with an error chunk and stop the thread."""
