"""Latency histograms as Prometheus has them, and quantiles of what a window added."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """Observations by upper bound, as exposed: cumulative.

    Attributes:
        bounds: Upper bounds, ascending; the last is infinite.
        counts: Observations up to each bound.
    """

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def count(self) -> float:
        """All observations."""
        return self.counts[-1] if self.counts else 0.0

    def less_than(self, before: Histogram) -> bool:
        """Whether it cannot be ``before`` grown older: it was counted anew."""
        return self.bounds != before.bounds or any(
            now < then for now, then in zip(self.counts, before.counts, strict=True)
        )

    def since(self, before: Histogram | None) -> Histogram:
        """What came after ``before``: all of it, where it was counted anew."""
        if before is None or self.less_than(before):
            return self
        grown = (now - then for now, then in zip(self.counts, before.counts, strict=True))
        return Histogram(self.bounds, tuple(grown))

    def quantile(self, share: float) -> float | None:
        """The value below which ``share`` (0 to 1) of the observations lie; None without any.

        Linear within its bucket, the first of which begins at 0; beyond the last finite bound,
        that bound: as ``histogram_quantile`` of Prometheus does
        (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile).
        """
        if len(self.bounds) < 2 or self.bounds[-1] != math.inf or not self.count > 0:
            return None
        rank = share * self.count
        at = next((i for i, count in enumerate(self.counts) if count >= rank), len(self.counts) - 1)
        if at == len(self.counts) - 1:
            return self.bounds[-2]
        start, below = (self.bounds[at - 1], self.counts[at - 1]) if at else (0.0, 0.0)
        inside = self.counts[at] - below
        if self.bounds[at] <= start or not inside:
            return self.bounds[at]
        return start + (self.bounds[at] - start) * ((rank - below) / inside)
