"""What is measured, each metric declared once: name, unit, direction and how it is computed.

Definitions, for a request intended for time s whose responses with text arrive at r1 .. rm
and whose final response arrives at e, with n output tokens by the server's count:

- TTFT, time to first token: r1 - s.
- E2E, end-to-end latency: e - s.
- ITL, inter-token latency: r(k+1) - r(k), one value for each pair of neighbours. A response
  may carry several tokens (``stream_interval``, speculation), so this is the pause a reader
  sees, not the time a token takes.
- TPOT, time per output token: (e - r1) / (n - 1), for n > 1. This is the time a token takes.

Failed requests have no latency; they count in the error share and against goodput.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pydantic import Field

from toolkit.bench.records import RequestRecord
from toolkit.spec.section import Section

Better = Literal["lower", "higher", "neither"]
PERCENTILES = (50.0, 90.0, 95.0, 99.0)


class Objective(Section):
    """Latency targets (SLO): a request is good if it completes within all that are set.

    ``itl_ms`` is held against the mean time per output token (TPOT), so that it judges token
    speed whatever number of tokens a response carries.
    """

    ttft_ms: float | None = Field(default=None, gt=0)
    itl_ms: float | None = Field(default=None, gt=0)
    e2e_ms: float | None = Field(default=None, gt=0)

    @property
    def limits(self) -> bool:
        """Whether any target is set."""
        return not (self.ttft_ms is None and self.itl_ms is None and self.e2e_ms is None)

    def met(self, record: RequestRecord) -> bool:
        """Whether the request was good."""
        return record.ok and all(
            limit is None or value is None or value <= limit
            for limit, value in (
                (self.ttft_ms, _one(ttft(record))),
                (self.itl_ms, _one(tpot(record))),
                (self.e2e_ms, _one(e2e(record))),
            )
        )


Objectives = dict[str, Objective]
"""By request class; the empty name is for requests of no class and of classes not listed."""


@dataclass(frozen=True)
class Window:
    """The stretch of time that is measured (clock seconds), and the requests that count.

    ``counted`` were intended within it; ``present`` are all whose tokens may have arrived in
    it, those before it included.
    """

    start: float
    end: float
    counted: Sequence[RequestRecord]
    present: Sequence[RequestRecord]
    objectives: Objectives

    @property
    def judged(self) -> list[tuple[Objective, RequestRecord]]:
        """The counted requests that have targets, with them."""
        found = ((self.objective(record), record) for record in self.counted)
        return [(objective, record) for objective, record in found if objective is not None]

    @property
    def length(self) -> float:
        """Seconds."""
        return max(self.end - self.start, 1e-9)

    def objective(self, record: RequestRecord) -> Objective | None:
        """The targets for one request, if there are any."""
        name = record.request.request_class
        found = self.objectives.get(name, self.objectives.get(""))
        return found if found is not None and found.limits else None


@dataclass(frozen=True)
class Sampled:
    """A metric with a distribution: ``of`` gives its values in one completed request."""

    name: str
    title: str
    unit: str
    better: Better
    of: Callable[[RequestRecord], Sequence[float]]


@dataclass(frozen=True)
class Total:
    """A metric with one figure for a window; None where it does not apply."""

    name: str
    title: str
    unit: str
    better: Better
    of: Callable[[Window], float | None]


def ttft(record: RequestRecord) -> Sequence[float]:
    """Milliseconds from the intended start to the first text."""
    first = record.first
    return () if first is None else ((first - record.request.intended) * 1000,)


def itl(record: RequestRecord) -> Sequence[float]:
    """Milliseconds between neighbouring responses."""
    times = record.responses
    return [(after - before) * 1000 for before, after in pairwise(times)]


def tpot(record: RequestRecord) -> Sequence[float]:
    """Milliseconds per token after the first."""
    first, tokens = record.first, record.output_tokens
    if first is None or tokens < 2 or len(record.responses) < 2:
        return ()
    return ((record.ended - first) * 1000 / (tokens - 1),)


def e2e(record: RequestRecord) -> Sequence[float]:
    """Milliseconds from the intended start to the final response."""
    return ((record.ended - record.request.intended) * 1000,)


def tokens_within(record: RequestRecord, start: float, end: float) -> float:
    """Output tokens that arrived in [start, end]: those of a request spread evenly over its
    responses, because a response does not tell how many it carries. Tokens of a request that
    failed are of no use to anybody and count as none."""
    times = record.responses
    if not record.ok:
        return 0.0
    if not times:
        return record.output_tokens if start <= record.ended <= end else 0.0
    inside = sum(start <= time <= end for time in times)
    return record.output_tokens * inside / len(times)


def _one(values: Sequence[float]) -> float | None:
    return values[0] if values else None


def _reported(field: str) -> Callable[[RequestRecord], Sequence[float]]:
    def of(record: RequestRecord) -> Sequence[float]:
        value = getattr(record.usage, field)
        return () if value is None else (float(value),)

    return of


def _output_rate(window: Window) -> float:
    return sum(tokens_within(r, window.start, window.end) for r in window.present) / window.length


def _request_rate(window: Window) -> float:
    ended = sum(r.ok and window.start <= r.ended <= window.end for r in window.present)
    return ended / window.length


def _goodput(window: Window) -> float | None:
    return _good(window) / window.length if window.judged else None


def _good_share(window: Window) -> float | None:
    return _ratio(_good(window), len(window.judged))


def _good(window: Window) -> int:
    return sum(objective.met(record) for objective, record in window.judged)


def _error_share(window: Window) -> float | None:
    return _ratio(sum(not r.ok for r in window.counted), len(window.counted))


def _reuse(window: Window) -> float | None:
    known = [
        (r.usage.cached_tokens, r.usage.prompt_tokens)
        for r in window.counted
        if r.usage.cached_tokens is not None and r.usage.prompt_tokens is not None
    ]
    return _ratio(sum(cached for cached, _ in known), sum(prompt for _, prompt in known))


def _acceptance(window: Window) -> float | None:
    drafted = _sum(r.usage.draft_tokens for r in window.counted)
    return _ratio(_sum(r.usage.accepted_draft_tokens for r in window.counted), drafted)


def _tokens_per_response(window: Window) -> float | None:
    done = [r for r in window.counted if r.ok and r.responses]
    return _ratio(sum(r.output_tokens for r in done), sum(len(r.responses) for r in done))


def mean_in_flight(window: Window) -> float:
    """Requests that ran at once, on average over the window."""
    busy = sum(
        max(0.0, min(r.ended, window.end) - max(r.request.intended, window.start))
        for r in window.present
    )
    return busy / window.length


def _sum(values: Iterable[int | None]) -> int:
    return sum(value or 0 for value in values)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


SAMPLED: tuple[Sampled, ...] = (
    Sampled("ttft", "time to first token", "ms", "lower", ttft),
    Sampled("itl", "inter-token latency", "ms", "lower", itl),
    Sampled("tpot", "time per output token", "ms", "lower", tpot),
    Sampled("e2e", "end-to-end latency", "ms", "lower", e2e),
    Sampled("queue_time", "queue time (server's)", "ms", "lower", _reported("queue_time_ms")),
    Sampled("server_ttft", "time to first token (server's)", "ms", "lower", _reported("ttft_ms")),
    Sampled("prompt_tokens", "prompt tokens", "tokens", "neither", _reported("prompt_tokens")),
    Sampled(
        "output_tokens", "output tokens", "tokens", "neither", lambda r: (float(r.output_tokens),)
    ),
)

TOTALS: tuple[Total, ...] = (
    Total("output_throughput", "output token throughput", "tokens/s", "higher", _output_rate),
    Total("request_throughput", "request throughput", "requests/s", "higher", _request_rate),
    Total("goodput", "requests within the SLO", "requests/s", "higher", _goodput),
    Total("good_share", "share within the SLO", "share", "higher", _good_share),
    Total("error_share", "share failed", "share", "lower", _error_share),
    Total("kv_reuse", "prompt tokens from the KV cache", "share", "higher", _reuse),
    Total("draft_acceptance", "draft tokens accepted", "share", "higher", _acceptance),
    Total("tokens_per_response", "tokens in a response", "tokens", "neither", _tokens_per_response),
    Total("in_flight", "requests in flight, mean", "requests", "neither", mean_in_flight),
)

BY_NAME: dict[str, Sampled | Total] = {
    **{metric.name: metric for metric in SAMPLED},
    **{metric.name: metric for metric in TOTALS},
}
