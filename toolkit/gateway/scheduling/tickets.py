"""What goes into the scheduler and what comes out of it.

Every time is in seconds of one monotonic clock of the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RefusalReason = Literal["queue_full", "too_late", "no_replica", "too_large"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request as the scheduler sees it: sizes, no text.

    ``max_tokens`` is already cut to the model's limits. ``prefix`` holds
    :func:`~toolkit.gateway.scheduling.block_hashes` of the prompt. ``deadline`` is absolute and
    is the last token's.
    """

    id: str
    model: str
    request_class: str
    prompt_tokens: int
    max_tokens: int
    prefix: tuple[int, ...]
    arrived: float
    deadline: float | None = None
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a ticket is not taken, and when it is worth coming back."""

    reason: RefusalReason
    message: str
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """Send this ticket to this replica now."""

    ticket: str
    replica: str


@dataclass(frozen=True, slots=True)
class Overdue:
    """A ticket whose time is up; ``running`` says that an engine has it."""

    ticket: str
    running: bool


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One engine: what it holds, and what is expected of it before anything is measured.

    ``slots`` is the largest batch, ``kv_tokens`` the tokens of KV cache (0: not known, not
    counted). ``guaranteed`` says that the engine admits a request only when its KV cache can hold
    its longest answer; otherwise it admits by the present length, and the scheduler counts the
    expected one. Rates are the whole engine's, tokens a second when it is full.
    """

    id: str
    model: str
    slots: int
    kv_tokens: int
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    guaranteed: bool = True

    def __post_init__(self) -> None:
        if self.slots < 1 or self.kv_tokens < 0:
            raise ValueError(f"replica {self.id}: slots {self.slots}, kv_tokens {self.kv_tokens}")


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """What an engine's live metrics say, everybody's requests counted; None where they do not.

    ``running`` and ``waiting`` are requests, ``kv_use`` is a share of the KV cache (0 to 1).
    """

    running: float | None = None
    waiting: float | None = None
    kv_use: float | None = None


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica in a :class:`Snapshot`.

    ``outstanding_tokens`` are those that its requests are still expected to need, prompt and
    answer; ``room`` is how many requests it would take now.
    """

    id: str
    model: str
    up: bool
    slots: int
    room: int
    running: Mapping[str, int] = field(default_factory=dict)
    outstanding_tokens: int = 0
    kv_tokens: int = 0
    kv_reserved: int = 0
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model's queue in a :class:`Snapshot`, by class."""

    model: str
    queued: Mapping[str, int]
    predicted_wait_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The scheduler at one moment, for health, metrics and ``toolkit top``."""

    models: tuple[ModelState, ...]
    replicas: tuple[ReplicaState, ...]

    @property
    def queued(self) -> dict[str, int]:
        """Waiting requests by class, all models together."""
        total: dict[str, int] = {}
        for model in self.models:
            for name, count in model.queued.items():
                total[name] = total.get(name, 0) + count
        return total

    @property
    def running(self) -> dict[str, int]:
        """Requests in the engines by class, all models together."""
        total: dict[str, int] = {}
        for replica in self.replicas:
            for name, count in replica.running.items():
                total[name] = total.get(name, 0) + count
        return total

    @property
    def predicted_wait_s(self) -> dict[str, float]:
        """By class, the longest of its models' waits."""
        longest: dict[str, float] = {}
        for model in self.models:
            for name, wait in model.predicted_wait_s.items():
                longest[name] = max(longest.get(name, 0.0), wait)
        return longest
