"""How much a figure changed, and how far that can be trusted.

The observation is the repeat: what happens within one is served by the same queue and batch.
Changes of a figure are differences of logarithms, so that a doubling and a halving weigh alike;
those of shares are points. Three things stand beside Student's t of the repeats:

- Repeats that happen to lie close together prove nothing: their variance is never taken for
  less than what the stretches of each repeat tell (:mod:`toolkit.bench.precision`).
- The repeats of one run resemble one another more than those of two runs do, because what makes
  repeats differ (another process, heat) also lasts longer than a run. What repeats vary beyond
  their stretches is such drift; ``LIKENESS`` of it is added for each run, as a run's mean varied
  that much more than its repeats explain when the same server was measured again and again
  (``benchmarks/compare_false_alarms.py`` prints it).
- ``RUN_TO_RUN`` is added for each run in any case: no two are exactly alike.

A single repeat a side has its stretches only; ``ALONE`` then stands for what cannot be seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from toolkit.bench.compare.figures import Figure
from toolkit.bench.report import Repeat
from toolkit.bench.statistics import t_quantile

LIKENESS = 0.5
RUN_TO_RUN = 0.01
ALONE = 0.03
_LEAST_DEGREES, _MOST_DEGREES = 2, 1000
_POWER = 0.9
_SHARES_OF_REQUESTS = ("error_share", "good_share")

Method = Literal["repeats", "stretches", "none"]


@dataclass(frozen=True)
class Spread:
    """Standard errors of both figures, on the scale of changes; ``degrees`` of freedom."""

    base: float
    new: float
    degrees: int
    method: Method

    @property
    def both(self) -> float:
        """Of the difference."""
        return math.hypot(self.base, self.new)


@dataclass(frozen=True)
class Change:
    """A figure before and after. ``spread`` is None where too little was measured for one."""

    figure: Figure
    base: float
    new: float
    spread: Spread | None

    @property
    def size(self) -> float:
        """On the scale of changes: a logarithm of a ratio, or points."""
        return self.between(self.base, self.new)

    def between(self, before: float, after: float) -> float:
        """The size of a change from one value to another; NaN if that has none."""
        if self.figure.is_share:
            return after - before
        if before <= 0:
            return 0.0 if after == before else math.nan
        return math.log(max(after / before, 1e-9))

    def shown(self, size: float) -> float:
        """A size as people say it: a part of the base, or points."""
        return size if self.figure.is_share else math.expm1(min(size, 100.0))


def change(figure: Figure, base: Sequence[Repeat], new: Sequence[Repeat]) -> Change | None:
    """The change of one figure under one load; None where a side has no such figure."""
    sides = [_observations(figure, side) for side in (base, new)]
    if not all(sides):
        return None
    before, after = (float(np.mean([one.figures[figure.key] for one in side])) for side in sides)
    return Change(figure, before, after, _spread(figure, sides))


def resolution(spread: Spread, level: float, limit: float = 0.0) -> float:
    """The smallest change that would show nine times in ten: it differs from none at ``level``,
    and passes ``limit``, which may be of either sign."""
    certain = t_quantile(level, spread.degrees) * spread.both
    return max(certain, abs(limit)) + t_quantile(_POWER, spread.degrees) * spread.both


def _observations(figure: Figure, side: Sequence[Repeat]) -> list[Repeat]:
    """The repeats that tell a figure; one that was cut short only where none is whole, because
    what had ended by then were the quick ones."""
    known = [one for one in side if math.isfinite(one.figures.get(figure.key, math.nan))]
    return [one for one in known if not one.partial] or known


def _spread(figure: Figure, sides: Sequence[Sequence[Repeat]]) -> Spread | None:
    within = [_within(figure, side) for side in sides]
    degrees = sum(len(side) - 1 for side in sides)
    if degrees >= _LEAST_DEGREES:
        known = [one for one in within if one is not None]
        floor = float(np.mean(known)) if known else 0.0
        variance = max(_between(figure, sides) / degrees, floor)
        drift = LIKENESS * (variance - floor)
        seen = [variance / len(side) + drift for side in sides]
        unseen = [_unseen(figure, side, RUN_TO_RUN) for side in sides]
        base, new = (math.sqrt(one + other) for one, other in zip(seen, unseen, strict=True))
        return Spread(base, new, _effective(degrees, sum(seen), sum(unseen)), "repeats")
    if within[0] is None or within[1] is None:
        return None
    base, new = (
        math.sqrt(variance / len(side) + _unseen(figure, side, ALONE))
        for side, variance in zip(sides, (within[0], within[1]), strict=True)
    )
    degrees = sum(one.blocks - 1 for side in sides for one in side)
    return Spread(base, new, max(degrees, 1), "stretches")


def _effective(degrees: int, seen: float, unseen: float) -> int:
    """Degrees of freedom of an estimated variance with a known one beside it (Satterthwaite,
    Biometrics Bulletin 2 (1946) 110)."""
    if not seen:
        return degrees
    return int(min(degrees * (1 + unseen / seen) ** 2, _MOST_DEGREES))


def _between(figure: Figure, sides: Sequence[Sequence[Repeat]]) -> float:
    """The sum of squares of the repeats about their side's mean, on the scale of changes."""
    squares = 0.0
    for side in sides:
        scale = 1.0 if figure.is_share else _mean(figure, side)
        values = [one.figures[figure.key] / scale if scale else 0.0 for one in side]
        squares += sum((value - float(np.mean(values))) ** 2 for value in values)
    return squares


def _unseen(figure: Figure, side: Sequence[Repeat], part: float) -> float:
    """Variance of a run's figure that comes from being another run; shares scale with it."""
    size = _mean(figure, side)
    return (part * (size if figure.is_share else float(size > 0))) ** 2


def _mean(figure: Figure, side: Sequence[Repeat]) -> float:
    return float(np.mean([one.figures[figure.key] for one in side]))


def _within(figure: Figure, side: Sequence[Repeat]) -> float | None:
    """The mean variance of a repeat's figure by its own stretches; None if one lacks it."""
    found = [_own(figure, one) for one in side]
    known = [one for one in found if one is not None]
    return float(np.mean(known)) if len(known) == len(found) else None


def _own(figure: Figure, repeat: Repeat) -> float | None:
    error = repeat.standard_errors.get(figure.key)
    if error is None or not math.isfinite(error):
        return None
    if figure.metric not in _SHARES_OF_REQUESTS:
        return error**2
    # Where none failed, the stretches see no spread: Wilson's centre keeps it above zero.
    count = max(repeat.requests, 1)
    share = (repeat.figures[figure.key] * count + 0.5) / (count + 1)
    return max(error**2, share * (1 - share) / count)
