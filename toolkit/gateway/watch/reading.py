"""One look at some gateways and Tritons: what each of them exposed at that moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from toolkit.gateway.watch.histogram import Histogram

Counts = Mapping[str, float]
"""A counter by the value of one of its labels."""


@dataclass(frozen=True)
class Target:
    """A place to look at.

    Attributes:
        name: What people call it: the deployment, or the address.
        url: Of its metrics.
        replica: For a Triton, what a gateway in front calls it: ``host:port`` of its gRPC.
        model: The only model it serves; empty: the metrics tell.
        status: Of its deployment; empty where there is no state.
        restarts: Of its server; None where there is no state.
        verify: Whether its certificate has to be trusted.
    """

    name: str
    url: str
    replica: str = ""
    model: str = ""
    status: str = ""
    restarts: int | None = None
    verify: bool = True

    @property
    def address(self) -> str:
        """``host:port``."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True)
class ClassReading:
    """One class of one model at a gateway. Counters count since the gateway's start.

    Attributes:
        ended: Requests by outcome.
        tokens: By ``prompt``, ``cached``, ``completion``.
        refused: By reason.
        targets: First tokens by whether in time: ``true``, ``false``.
        drafts: Draft tokens by ``proposed``, ``accepted``.
    """

    waiting: float = 0.0
    running: float = 0.0
    ended: Counts = field(default_factory=dict)
    tokens: Counts = field(default_factory=dict)
    refused: Counts = field(default_factory=dict)
    targets: Counts = field(default_factory=dict)
    drafts: Counts = field(default_factory=dict)
    ttft: Histogram | None = None
    itl: Histogram | None = None
    queue: Histogram | None = None

    @property
    def counters(self) -> tuple[Counts, ...]:
        return self.ended, self.tokens, self.refused, self.targets, self.drafts

    @property
    def histograms(self) -> tuple[Histogram | None, ...]:
        return self.ttft, self.itl, self.queue


@dataclass(frozen=True)
class ReplicaReading:
    """One replica as its gateway sees it; tokens of the KV cache are those it may hold."""

    up: bool
    running: float = 0.0
    slots: float | None = None
    outstanding_tokens: float | None = None
    kv_tokens: float | None = None
    kv_reserved: float | None = None


@dataclass(frozen=True)
class EngineReading:
    """One model of a Triton. Counters count since the engine's start.

    Attributes:
        kv_use: Share of KV blocks in use, 0 to 1.
        steps: Iterations of the engine.
        ended: Requests by finish reason.
        tokens: By ``input``, ``input_cached``, ``output``, ``draft``, ``draft_accepted``.
        blocks: KV blocks by ``looked_up``, ``reused``.
        preemptions: By kind.
    """

    running: float | None = None
    waiting: float | None = None
    slots: float | None = None
    kv_use: float | None = None
    steps: float | None = None
    ended: Counts = field(default_factory=dict)
    tokens: Counts = field(default_factory=dict)
    blocks: Counts = field(default_factory=dict)
    preemptions: Counts = field(default_factory=dict)

    @property
    def counters(self) -> tuple[Counts, ...]:
        steps = {} if self.steps is None else {"steps": self.steps}
        return self.ended, self.tokens, self.blocks, self.preemptions, steps


@dataclass(frozen=True)
class Figures:
    """What one answer said.

    Attributes:
        classes: By model and class.
        replicas: By model and replica.
        engines: By model.
        cost: Of a thousand tokens.
        born: When the oldest counter of a gateway was made, in seconds since the epoch.
    """

    classes: Mapping[tuple[str, str], ClassReading] = field(default_factory=dict)
    replicas: Mapping[tuple[str, str], ReplicaReading] = field(default_factory=dict)
    engines: Mapping[str, EngineReading] = field(default_factory=dict)
    cost: float | None = None
    born: float | None = None


@dataclass(frozen=True)
class SourceReading:
    """One target at one moment (``at``, seconds, monotonic); ``figures`` is None without answer.

    ``error`` says why there is none.
    """

    target: Target
    at: float
    figures: Figures | None
    error: str = ""


@dataclass(frozen=True)
class Reading:
    """All targets, looked at together."""

    sources: tuple[SourceReading, ...]

    def of(self, target: Target) -> SourceReading | None:
        """What was read at the place of ``target``."""
        return next((each for each in self.sources if each.target.url == target.url), None)
