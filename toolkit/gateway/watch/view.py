"""What a window of time looked like: the figures that people and programs want to see.

None stands for what nobody told, or for a share of nothing. Rates are by the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ClassView:
    """One class of one model at one source; without a gateway the class is None.

    Attributes:
        ended_per_s: Requests by outcome.
        in_time: Share of first tokens within their target, 0 to 1.
        acceptance_rate: Share of draft tokens accepted, 0 to 1.
        refused_per_s: Requests by reason.
    """

    source: str
    model: str
    request_class: str | None
    waiting: float | None = None
    running: float | None = None
    requests_per_s: float | None = None
    ended_per_s: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens_per_s: float | None = None
    cached_tokens_per_s: float | None = None
    completion_tokens_per_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    itl_p50_s: float | None = None
    itl_p95_s: float | None = None
    queue_p95_s: float | None = None
    in_time: float | None = None
    acceptance_rate: float | None = None
    refused_per_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ReplicaView:
    """One replica, as its gateway and its own Triton tell.

    Attributes:
        up: Whether it takes work.
        running: Slots used.
        kv_use: Share of KV blocks in use, 0 to 1.
        kv_reserved: Share that the running requests may come to use, as the gateway reckons.
        kv_hit_rate: Share of looked-up KV blocks that were there, in the window.
        acceptance_rate: Share of draft tokens accepted, in the window.
        preemptions: In the window.
        preemptions_total: Since the engine's start.
        restarts: Of its server, since it was deployed.
    """

    source: str
    model: str
    replica: str
    up: bool
    running: float | None = None
    slots: float | None = None
    outstanding_tokens: float | None = None
    kv_use: float | None = None
    kv_reserved: float | None = None
    kv_hit_rate: float | None = None
    acceptance_rate: float | None = None
    preemptions: float | None = None
    preemptions_total: float | None = None
    restarts: int | None = None


@dataclass(frozen=True)
class SourceView:
    """One place that was looked at; ``restarted`` tells that its counters began anew."""

    name: str
    url: str
    answers: bool
    error: str = ""
    status: str = ""
    restarts: int | None = None
    restarted: bool = False
    cost_per_thousand_tokens: float | None = None


@dataclass(frozen=True)
class View:
    """A window of ``window_s`` seconds; None: only one look so far, so nothing has a rate."""

    window_s: float | None
    sources: tuple[SourceView, ...] = ()
    classes: tuple[ClassView, ...] = ()
    replicas: tuple[ReplicaView, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)
