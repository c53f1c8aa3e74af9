"""Percentiles and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 400
CONFIDENCE = 0.95
_T_BY_DEGREES = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """The 95% confidence interval of a figure."""

    low: float
    high: float


def t_factor(degrees: int) -> float:
    """Half-width of Student's 95% interval in standard errors.

    A table up to 20 degrees of freedom; above, the first terms of the expansion about the
    normal quantile (Abramowitz and Stegun, 26.7.5), exact to four digits there.
    """
    if degrees <= len(_T_BY_DEGREES):
        return _T_BY_DEGREES[degrees - 1]
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def over_repeats(figures: Sequence[float]) -> Interval | None:
    """Student's interval of the mean of independent repeats; None for fewer than two."""
    count = len(figures)
    if count < 2:
        return None
    mean = math.fsum(figures) / count
    variance = math.fsum((figure - mean) ** 2 for figure in figures) / (count - 1)
    half = t_factor(count - 1) * math.sqrt(variance / count)
    return Interval(mean - half, mean + half)


class Sample:
    """Values that came from requests, several perhaps from one.

    Args:
        values: The values, in any order.
        owners: For each value the number of its request. Values of one request depend on one
            another, so the bootstrap draws whole requests.
    """

    def __init__(self, values: Sequence[float], owners: Sequence[int]) -> None:
        array: Floats = np.asarray(values, dtype=np.float64)
        order = np.argsort(array, kind="stable")
        self.values = array[order]
        names, self._owners = np.unique(np.asarray(owners)[order], return_inverse=True)
        self._requests = len(names)

    def __len__(self) -> int:
        return len(self.values)

    def percentile(self, percent: float) -> float:
        """Linear between the nearest ranks."""
        return float(np.percentile(self.values, percent))

    def bootstrap(self, percents: Sequence[float], seed: int = 0) -> dict[str, Interval | None]:
        """Percentile-bootstrap intervals of ``mean`` and of each ``pNN``.

        None where fewer than ten requests stand behind it: such intervals would pretend.
        """
        names = ["mean", *(f"p{percent:g}" for percent in percents)]
        if self._requests < 10:
            return dict.fromkeys(names)
        generator = np.random.default_rng(seed)
        share = np.full(self._requests, 1 / self._requests)
        draws = []
        for _ in range(RESAMPLES):
            weights = generator.multinomial(self._requests, share)[self._owners]
            total = np.cumsum(weights)
            ranks = np.searchsorted(total, [p / 100 * total[-1] for p in percents])
            picked = self.values[np.minimum(ranks, len(self.values) - 1)]
            draws.append([float(self.values @ weights / total[-1]), *picked])
        edge = (1 - CONFIDENCE) / 2 * 100
        lows, highs = np.percentile(np.asarray(draws), [edge, 100 - edge], axis=0)
        return {
            name: Interval(float(low), float(high))
            for name, low, high in zip(names, lows, highs, strict=True)
        }
