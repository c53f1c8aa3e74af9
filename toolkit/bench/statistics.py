"""Percentiles and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 400
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """The 95% confidence interval of a figure."""

    low: float
    high: float


def t_factor(degrees: int) -> float:
    """Half-width of Student's 95% interval in standard errors."""
    return t_quantile(0.5 + CONFIDENCE / 2, degrees)


@lru_cache(maxsize=1024)
def t_quantile(probability: float, degrees: int) -> float:
    """The value below which Student's t with so many degrees of freedom falls that often.

    Raises:
        ValueError: the probability is not between 0 and 1, or there is no degree of freedom.
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"no quantile of t at {probability} with {degrees} degrees of freedom")
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    inside = 2 * probability - 1
    high = 1.0
    while t_inside(high, degrees) < inside:
        high *= 2
    low = 0.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_inside(middle, degrees) < inside else (low, middle)
    return high


def t_inside(size: float, degrees: int) -> float:
    """How likely Student's t lies within ``size`` of zero.

    The finite series for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    angle = math.atan(size / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term, total = cosine if odd else 1.0, 0.0
    for step in range(1, degrees // 2 + 1):
        total += term
        term *= (2 * step - 1 + odd) / (2 * step + odd) * cosine**2
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


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
