"""How many times better one rung is than another, paired by round.

A round measures every rung once, one after the other, so what the machine does slowly is in
both figures of a pair and leaves their ratio. Ratios are averaged as logarithms: twice as fast
and half as fast cancel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolkit.bench.metrics import Better
from toolkit.bench.report import Estimate
from toolkit.bench.statistics import over_repeats

Rounds = Sequence[float | None]


def times_better(ours: Rounds, theirs: Rounds, better: Better) -> tuple[Estimate, int] | None:
    """The geometric mean of the rounds' ratios, above 1 where ``ours`` is better.

    Args:
        ours: A figure in each round; None where the round has none.
        theirs: Likewise, of the rung compared with.
        better: Which way the figure goes.

    Returns:
        The ratio with Student's 95% interval (none for a single round), and the number of
        rounds that have both; None if there is none. A figure of 0 has no ratio.
    """
    sign = -1.0 if better == "lower" else 1.0
    logs = [
        sign * math.log(mine / other)
        for mine, other in zip(ours, theirs, strict=False)
        if mine is not None and other is not None and mine > 0 and other > 0
    ]
    if not logs:
        return None
    value = math.exp(math.fsum(logs) / len(logs))
    interval = over_repeats(logs)
    if interval is None:
        return Estimate(value=value), 1
    low, high = math.exp(max(interval.low, -700)), math.exp(min(interval.high, 700))
    return Estimate(value=value, low=low, high=high, method="t"), len(logs)


def mean_of(values: Rounds) -> Estimate | None:
    """The mean over rounds, with Student's interval where there are two or more."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean, interval = math.fsum(known) / len(known), over_repeats(known)
    if interval is None:
        return Estimate(value=mean)
    return Estimate(value=mean, low=interval.low, high=interval.high, method="t")
