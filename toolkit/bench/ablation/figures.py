"""The figures of one slot: what an ordinary report says of one load, and TTFT by turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.bench.metrics import Better
from toolkit.bench.report import Point, Span


@dataclass(frozen=True)
class Metric:
    """A figure that rungs are compared by."""

    name: str
    title: str
    unit: str
    better: Better


METRICS: tuple[Metric, ...] = (
    Metric("e2e.p50", "median E2E", "ms", "lower"),
    Metric("e2e.p95", "E2E p95", "ms", "lower"),
    Metric("ttft.p50", "median TTFT", "ms", "lower"),
    Metric("ttft_later.p50", "median TTFT of later turns", "ms", "lower"),
    Metric("itl.p50", "median ITL", "ms", "lower"),
    Metric("itl.p95", "ITL p95", "ms", "lower"),
    Metric("tpot.p50", "median TPOT", "ms", "lower"),
    Metric("output_throughput", "output tokens/s", "tokens/s", "higher"),
    Metric("goodput", "requests/s in SLO", "requests/s", "higher"),
)
PROOFS: tuple[Metric, ...] = (
    Metric("kv_reuse", "KV reuse", "share", "neither"),
    Metric("draft_acceptance", "drafts accepted", "share", "neither"),
    Metric("error_share", "failed", "share", "neither"),
)
"""What shows that a feature was in effect; nothing to compare."""

BY_NAME = {metric.name: metric for metric in (*METRICS, *PROOFS)}
CURVES = ("ttft", "ttft_later", "itl")


def figures_of(point: Point) -> dict[str, float]:
    """Every figure of one slot that was measured, by name."""
    repeat = point.repeats[0]
    found = {name: repeat.figures[name] for name in BY_NAME if name in repeat.figures}
    later = later_ttft(repeat.spans)
    if later:
        found["ttft_later.p50"] = float(np.median(later))
    return found


def curves_of(point: Point) -> dict[str, tuple[float, ...]]:
    """The distributions of one slot: values at 0, 1, ... 100 percent."""
    found: dict[str, tuple[float, ...]] = {
        name: point.distributions[name].curve
        for name in ("ttft", "itl")
        if name in point.distributions
    }
    later = later_ttft(point.repeats[0].spans)
    if later:
        found["ttft_later"] = tuple(map(float, np.percentile(later, np.arange(101))))
    return found


def later_ttft(spans: Sequence[Span]) -> list[float]:
    """Milliseconds to the first token of requests that continue a conversation."""
    return [
        (span.first - span.intended) * 1000
        for span in spans
        if span.turn > 0 and span.counted and span.error is None and span.first is not None
    ]
