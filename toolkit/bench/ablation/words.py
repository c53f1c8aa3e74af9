"""What an interval says, in words."""

from __future__ import annotations

from toolkit.bench.ablation.figures import Metric
from toolkit.bench.report import Estimate

_MANY = 2.0


def verdict(times: Estimate, rounds: int, metric: Metric) -> str:
    """Better, worse, or that no difference could be told; with how much, and how sure."""
    if times.low is None or times.high is None:
        return f"{_changed(times.value, metric)} in one round, which gives no interval"
    if times.low <= 1 <= times.high:
        return f"no difference could be told ({_span(times)}, {rounds} rounds)"
    return f"{_changed(times.value, metric)} ({_span(times)}, {rounds} rounds)"


def is_told(times: Estimate) -> bool:
    """Whether the interval leaves 1 out."""
    return times.low is not None and times.high is not None and not times.low <= 1 <= times.high


def times_text(times: Estimate) -> str:
    """``5.40x (4.91 to 5.93)``."""
    if times.low is None or times.high is None:
        return f"{_number(times.value)}x"
    return f"{_number(times.value)}x ({_number(times.low)} to {_number(times.high)})"


def _changed(times: float, metric: Metric) -> str:
    """The change of the figure itself: a median that is 2x better is half as high."""
    factor = 1 / times if metric.better == "lower" else times
    way = "higher" if factor > 1 else "lower"
    much = max(factor, 1 / factor)
    if much >= _MANY:
        return f"{_number(much)} times {way}" + (f", by {1 - factor:.0%}" if factor < 1 else "")
    return f"{way} by {abs(factor - 1):.0%}"


def _span(times: Estimate) -> str:
    assert times.low is not None
    assert times.high is not None
    return f"{_number(times.low)}x to {_number(times.high)}x as good"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
