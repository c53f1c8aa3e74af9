"""From records to the report's figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.bench.load import Load
from toolkit.bench.metrics import PERCENTILES, SAMPLED, TOTALS, Sampled, Window, tokens_within
from toolkit.bench.precision import precision
from toolkit.bench.records import RequestRecord
from toolkit.bench.report import (
    Distribution,
    ErrorKind,
    Estimate,
    Point,
    Repeat,
    Series,
    Span,
)
from toolkit.bench.saturation import ClientHealth
from toolkit.bench.statistics import Interval, Sample, over_repeats

_MOST_STEPS = 60
_LEAST_STEP_S = 0.25


@dataclass(frozen=True)
class Measurement:
    """What one run of one load left behind."""

    seed: str
    window: Window
    client: ClientHealth
    counted_by: str = "server"
    partial: bool = False


def summarize_point(load: Load, runs: Sequence[Measurement]) -> Point:
    """One load's report from its repeats (at least one)."""
    repeats = tuple(summarize_repeat(run) for run in runs)
    distributions = {}
    for metric in SAMPLED:
        found = _distribution(metric, runs, repeats)
        if found:
            distributions[metric.name] = found
    totals = {}
    for total in TOTALS:
        values = [one.figures[total.name] for one in repeats if total.name in one.figures]
        if values:
            totals[total.name] = _estimate(values, None)
    records = [record for run in runs for record in run.window.counted]
    return Point(
        label=load.label,
        load=load,
        distributions=distributions,
        totals=totals,
        errors=errors_by_kind(records),
        repeats=repeats,
    )


def summarize_repeat(run: Measurement) -> Repeat:
    """One run's report."""
    window = run.window
    figures = {total.name: total.of(window) for total in TOTALS}
    for metric in SAMPLED:
        sample = _sample(metric, window.counted)
        if len(sample):
            figures[f"{metric.name}.mean"] = float(sample.values.mean())
            for percent in PERCENTILES:
                figures[f"{metric.name}.p{percent:g}"] = sample.percentile(percent)
    known = precision(window)
    return Repeat(
        seed=run.seed,
        window_s=window.length,
        requests=len(window.counted),
        completed=sum(record.ok for record in window.counted),
        figures={name: value for name, value in figures.items() if value is not None},
        standard_errors=known.errors,
        blocks=known.blocks,
        client=run.client,
        series=_series(window),
        spans=_spans(window),
        partial=run.partial,
    )


def errors_by_kind(records: Sequence[RequestRecord]) -> tuple[ErrorKind, ...]:
    """Failures grouped by kind, most frequent first."""
    failures = [record.failure for record in records if record.failure]
    counts = Counter(failure.kind for failure in failures)
    examples = {failure.kind: failure.message for failure in reversed(failures)}
    return tuple(
        ErrorKind(kind=kind, count=count, example=examples[kind])
        for kind, count in counts.most_common()
    )


def _sample(metric: Sampled, records: Sequence[RequestRecord], first_owner: int = 0) -> Sample:
    values: list[float] = []
    owners: list[int] = []
    for owner, record in enumerate(records, first_owner):
        if record.ok:
            found = metric.of(record)
            values.extend(found)
            owners.extend([owner] * len(found))
    return Sample(values, owners)


def _distribution(
    metric: Sampled, runs: Sequence[Measurement], repeats: Sequence[Repeat]
) -> Distribution | None:
    pooled = _sample(metric, [record for run in runs for record in run.window.counted])
    if not len(pooled):
        return None
    single = pooled.bootstrap(PERCENTILES) if len(runs) == 1 else {}
    stats = {}
    for stat in ("mean", *(f"p{percent:g}" for percent in PERCENTILES)):
        name = f"{metric.name}.{stat}"
        values = [one.figures[name] for one in repeats if name in one.figures]
        stats[stat] = _estimate(values, single.get(stat))
    curve = np.percentile(pooled.values, np.arange(101))
    return Distribution(
        unit=metric.unit, count=len(pooled), stats=stats, curve=tuple(map(float, curve))
    )


def _estimate(values: Sequence[float], single: Interval | None) -> Estimate:
    """The mean over repeats; with one repeat, its own figure and a bootstrap interval."""
    interval, method = over_repeats(values), "t"
    if interval is None:
        interval, method = single, "bootstrap"
    return Estimate(
        value=float(np.mean(values)),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        method=method if interval else "none",
    )


def _series(window: Window) -> Series:
    """Tokens over time; each request's tokens spread evenly over its responses."""
    times: list[float] = []
    weights: list[float] = []
    for record in window.present:
        arrivals = record.responses or ([record.ended] if record.ok else [])
        inside = tokens_within(record, window.start, window.end)
        arrivals = [time for time in arrivals if window.start <= time <= window.end]
        times.extend(arrivals)
        weights.extend([inside / len(arrivals)] * len(arrivals) if arrivals else [])
    steps = max(4, min(_MOST_STEPS, int(window.length / _LEAST_STEP_S)))
    step = window.length / steps
    counts, _ = np.histogram(
        times, bins=steps, range=(window.start, window.start + window.length), weights=weights
    )
    return Series(step=step, tokens_per_s=tuple(round(float(count / step), 3) for count in counts))


def _spans(window: Window) -> tuple[Span, ...]:
    counted = {id(record) for record in window.counted}

    def since(time: float) -> float:
        return round(time - window.start, 6)

    return tuple(
        Span(
            intended=since(record.request.intended),
            first=None if record.first is None else since(record.first),
            ended=since(record.ended),
            output_tokens=record.output_tokens,
            turn=record.request.turn,
            counted=id(record) in counted,
            error=record.failure.kind if record.failure else None,
        )
        for record in sorted(window.present, key=lambda one: one.request.intended)
    )
