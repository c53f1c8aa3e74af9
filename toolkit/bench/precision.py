"""How exactly one run tells its figures, from how they change while it lasts.

Requests that are served together share a queue and a batch, so they are no independent
observations: an interval from single requests pretends. What is drawn anew here are whole
stretches of time, each longer than a request (the block bootstrap and the method of batch
means; Künsch, Annals of Statistics 17 (1989) 1217; Law, Simulation Modeling and Analysis,
9.5.3). What changes more slowly than the run lasts cannot be seen from within it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.bench.metrics import PERCENTILES, SAMPLED, TOTALS, Sampled, Window
from toolkit.bench.statistics import Floats

LEAST_BLOCKS, MOST_BLOCKS = 4, 10
_LEAST_REQUESTS = 10
_DRAWS = 100
_MOST_VALUES = 20_000


@dataclass(frozen=True)
class Precision:
    """Standard errors of a run's figures by name (``ttft.p50``): of shares in the share's own
    unit, of all others as a part of the figure. ``blocks`` is how many stretches tell them."""

    errors: dict[str, float]
    blocks: int


def precision(window: Window) -> Precision:
    """What the window's stretches say; nothing where too few requests stand behind it."""
    count = _count(window)
    if len(window.counted) < _LEAST_REQUESTS or count < LEAST_BLOCKS:
        return Precision({}, 0)
    blocks = list(_blocks(window, count))
    errors = dict(_of_totals(blocks))
    for metric in SAMPLED:
        errors.update(_of_samples(metric, blocks))
    return Precision({name: round(error, 6) for name, error in errors.items()}, len(blocks))


def _count(window: Window) -> int:
    """Stretches as long as the median request, so that neighbours share few of them."""
    durations = sorted(record.ended - record.request.intended for record in window.counted)
    usual = max(durations[len(durations) // 2], 1e-9)
    return min(MOST_BLOCKS, int(window.length / usual))


def _blocks(window: Window, count: int) -> Iterator[Window]:
    step = window.length / count
    for index in range(count):
        start, end = window.start + index * step, window.start + (index + 1) * step
        last = index == count - 1
        counted = [
            r
            for r in window.counted
            if start <= r.request.intended and (r.request.intended < end or last)
        ]
        present = [r for r in window.present if r.request.intended <= end and r.ended >= start]
        yield Window(start, end, counted, present, window.objectives)


def _of_totals(blocks: Sequence[Window]) -> Iterator[tuple[str, float]]:
    for total in TOTALS:
        found = [total.of(block) for block in blocks]
        values = [value for value in found if value is not None]
        if len(values) < LEAST_BLOCKS:
            continue
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
        mean = float(np.mean(values))
        if total.unit == "share":
            yield total.name, error
        elif mean > 0:
            yield total.name, error / mean


def _of_samples(metric: Sampled, blocks: Sequence[Window]) -> Iterator[tuple[str, float]]:
    values: list[float] = []
    owners: list[int] = []
    for owner, block in enumerate(blocks):
        for record in block.counted:
            if record.ok:
                found = metric.of(record)
                values.extend(found)
                owners.extend([owner] * len(found))
    names = len(set(owners))
    if names < LEAST_BLOCKS:
        return
    draws = _draws(np.asarray(values), np.asarray(owners))
    stats = ("mean", *(f"p{percent:g}" for percent in PERCENTILES))
    for stat, column in zip(stats, draws.T, strict=True):
        usable = column[column > 0]
        if len(usable) == len(column):
            spread = float(np.std(np.log(column), ddof=1))
            # Few blocks that are drawn with replacement vary too little.
            yield f"{metric.name}.{stat}", spread * math.sqrt(names / (names - 1))


def _draws(values: Floats, owners: Floats) -> Floats:
    """Mean and percentiles (columns) of samples of blocks drawn with replacement (rows)."""
    order = np.argsort(values, kind="stable")
    order = order[:: max(1, len(order) // _MOST_VALUES)]
    values = values[order]
    names, places = np.unique(owners[order], return_inverse=True)
    generator = np.random.default_rng(0)
    rows = []
    for weights in generator.multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=_DRAWS
    ):
        weight = weights[places]
        total = np.cumsum(weight)
        ranks = np.searchsorted(total, [p / 100 * total[-1] for p in PERCENTILES])
        picked = values[np.minimum(ranks, len(values) - 1)]
        rows.append([float(values @ weight / total[-1]), *picked])
    return np.asarray(rows)
