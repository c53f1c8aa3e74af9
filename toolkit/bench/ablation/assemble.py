"""From slots (one rung, one round, an ordinary report each) to the ablation's report."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from toolkit.bench.ablation.figures import METRICS, curves_of, figures_of
from toolkit.bench.ablation.ratios import mean_of, times_better
from toolkit.bench.ablation.report import (
    AblationReport,
    Against,
    Comparison,
    LeftOutStep,
    LoadResults,
    Removal,
    RungFacts,
    RungResult,
)
from toolkit.bench.ablation.words import verdict
from toolkit.bench.report import BenchReport, Point

Slots = Mapping[tuple[int, str], BenchReport]
"""By round (from 0) and rung."""


@dataclass(frozen=True)
class Frame:
    """What is known of an ablation beside its measurements."""

    title: str
    created: str
    rungs: tuple[RungFacts, ...]
    rounds: int
    removals: tuple[Removal, ...] = ()
    left_out: tuple[LeftOutStep, ...] = ()
    partial: bool = False
    notes: tuple[str, ...] = field(default=())


def assemble(frame: Frame, slots: Slots) -> AblationReport:
    """The report; rungs of which nothing was measured are dropped and named in a note.

    Raises:
        ValueError: there is no slot at all.
    """
    if not slots:
        raise ValueError("nothing was measured")
    earliest = min(slots)
    first = slots[earliest]
    measured = {rung for _, rung in slots}
    rungs = tuple(rung for rung in frame.rungs if rung.key in measured)
    missing = [rung.title for rung in frame.rungs if rung.key not in measured]
    loads = tuple(_loads(rungs, slots, frame.rounds))
    comparisons = tuple(
        one
        for load in loads
        for pair in _pairs(rungs, frame.removals)
        for one in _compare(load, *pair)
    )
    notes = [*frame.notes, *_notes(rungs, slots)]
    if missing:
        notes.append(f"nothing was measured of {', '.join(missing)}")
    return AblationReport(
        toolkit_version=first.toolkit_version,
        created=frame.created,
        title=frame.title,
        partial=frame.partial,
        machine=first.machine,
        workload=first.workload,
        stop=first.stop,
        objectives=first.objectives,
        seed=first.seed - earliest[0],  # each round's is one more
        rounds=frame.rounds,
        rungs=rungs,
        removals=tuple(one for one in frame.removals if one.rung in measured),
        left_out=frame.left_out,
        loads=loads,
        comparisons=comparisons,
        notes=tuple(notes),
    )


def _loads(rungs: Sequence[RungFacts], slots: Slots, rounds: int) -> Iterator[LoadResults]:
    known: dict[str, Point] = {}
    for report in slots.values():
        for point in report.points:
            known.setdefault(point.label, point)
    for label, example in known.items():
        results = [_result(rung.key, label, slots, rounds) for rung in rungs]
        found = tuple(one for one in results if one is not None)
        yield LoadResults(label=label, load=example.load, results=found)


def _result(rung: str, label: str, slots: Slots, rounds: int) -> RungResult | None:
    points = [_point(slots.get((number, rung)), label) for number in range(rounds)]
    present = [point for point in points if point]
    if not present:
        return None
    figures = [figures_of(point) if point else {} for point in points]
    names = dict.fromkeys(name for one in figures for name in one)
    by_round = {name: tuple(one.get(name) for one in figures) for name in names}
    means = {name: mean_of(values) for name, values in by_round.items()}
    return RungResult(
        rung=rung,
        requests=sum(point.repeats[0].requests for point in present),
        completed=sum(point.repeats[0].completed for point in present),
        rounds=by_round,
        figures={name: mean for name, mean in means.items() if mean},
        curves=_curves([curves_of(point) for point in present]),
    )


def _point(report: BenchReport | None, label: str) -> Point | None:
    if report is None:
        return None
    return next((point for point in report.points if point.label == label), None)


def _curves(found: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, tuple[float, ...]]:
    names = dict.fromkeys(name for one in found for name in one)
    return {
        name: tuple(
            map(float, np.mean([one[name] for one in found if name in one], axis=0).round(4))
        )
        for name in names
    }


def _pairs(
    rungs: Sequence[RungFacts], removals: Sequence[Removal]
) -> Iterator[tuple[str, Against, str, str]]:
    """Who is compared with whom: (rung, against, base, feature)."""
    steps = [rung.key for rung in rungs if rung.is_step]
    for rung in rungs[1:]:
        yield rung.key, "first", rungs[0].key, ""
    for before, after in itertools.pairwise(steps):
        yield after, "previous", before, ""
    keys = {rung.key for rung in rungs}
    full = next((rung.key for rung in rungs if rung.is_step and rung.is_full), None)
    for one in removals:
        if full and one.rung in keys:
            yield full, "removed", one.rung, one.feature


def _compare(
    load: LoadResults, rung: str, against: Against, base: str, feature: str
) -> Iterator[Comparison]:
    ours, theirs = load.of(rung), load.of(base)
    if ours is None or theirs is None:
        return
    for metric in METRICS:
        pair = ours.rounds.get(metric.name), theirs.rounds.get(metric.name)
        if pair[0] is None or pair[1] is None:
            continue
        found = times_better(pair[0], pair[1], metric.better)
        if found:
            yield Comparison(
                load=load.label,
                rung=rung,
                against=against,
                base=base,
                feature=feature,
                metric=metric.name,
                times=found[0],
                rounds=found[1],
                words=verdict(*found, metric),
            )


def _notes(rungs: Sequence[RungFacts], slots: Slots) -> Iterator[str]:
    """Each slot's own notes, once for a rung."""
    for rung in rungs:
        said = [
            note for (_, key), one in sorted(slots.items()) if key == rung.key for note in one.notes
        ]
        for note in dict.fromkeys(said):
            yield f"{rung.title}: {note}"
