"""From two reports to verdicts.

A limit fails if the change passes it and is no accident: the interval excludes "no change".
It is kept if the interval excludes the limit, or if the change is real but within it. Where
neither "no change" nor the limit can be excluded, nothing is decided: the run was too short or
too noisy. A limit without a tolerance (an absolute one, ``> +0%``, or one that asks for an
improvement) fails if the interval lies beyond it, and is kept if the figure lies within.

With many limits one would fail by chance: each is held at 1 - (1 - confidence) / their number
(Bonferroni), so that an unchanged system fails any of them no more often than 1 - confidence.
That all are kept is said only where each is, so for that each is held at the confidence itself
(an intersection-union test: Berger, Technometrics 24 (1982) 295). The rows of the other table
may differ to either side, so each side gets half of what a row may be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit import __version__
from toolkit.bench.compare.change import Change, change, resolution
from toolkit.bench.compare.comparison import (
    Comparison,
    Difference,
    Judgement,
    Outcome,
    Row,
    Side,
    Verdict,
)
from toolkit.bench.compare.figures import HEADLINES
from toolkit.bench.compare.gates import Gate
from toolkit.bench.compare.matching import Pair, differences, pairs, same_objectives
from toolkit.bench.compare.wording import evidence, evidence_alone
from toolkit.bench.report import BenchReport, Point
from toolkit.bench.statistics import t_quantile
from toolkit.errors import SpecError

CONFIDENCE = 0.95
_BY_OBJECTIVE = ("goodput", "good_share")


def compare(
    base: BenchReport,
    new: BenchReport,
    gates: Sequence[Gate] = (),
    *,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Hold ``new`` against ``base``, load by load.

    Raises:
        SpecError: the reports measured different work, or a gate names what neither has.
    """
    common = pairs(base, new)
    objectives = same_objectives(base, new)
    asked = [(gate, pair) for gate in gates for pair in _meant(gate, common, objectives)]
    return Comparison(
        toolkit_version=__version__,
        confidence=confidence,
        base=_side(base),
        new=_side(new),
        differing=tuple(differences(base, new, common)),
        rows=tuple(_rows(common, objectives, confidence)),
        judgements=(
            *(
                _judge(gate, pair, _Levels(_level(confidence, len(asked)), confidence))
                for gate, pair in asked
            ),
            *_unreached(gates, common, base, new),
        ),
    )


@dataclass(frozen=True)
class _Levels:
    """How sure one has to be, to one side, that a limit is broken, and that it is kept."""

    broken: float
    kept: float


def _meant(gate: Gate, common: Sequence[Pair], objectives: bool) -> list[Pair]:
    """The loads that a gate is for."""
    where = f"--fail-if {gate.text!r}"
    if gate.figure.metric in _BY_OBJECTIVE and not objectives:
        raise SpecError("the reports were held against different SLOs", where=where)
    chosen = [pair for pair in common if gate.load in (None, pair[1].label)]
    if not chosen:
        labels = ", ".join(after.label for _, after in common)
        raise SpecError(
            f"there is no load {gate.load!r} in both", where=where, hint=f"there are: {labels}"
        )
    key = gate.figure.key
    found = [
        pair
        for pair in chosen
        if any(key in repeat.figures for point in pair for repeat in point.repeats)
    ]
    if not found:
        raise SpecError(f"neither report measured {gate.figure.name}", where=where)
    return found


def _unreached(
    gates: Sequence[Gate], common: Sequence[Pair], base: BenchReport, new: BenchReport
) -> Iterator[Judgement]:
    """Loads that were to be judged, had the new run not ended early: it may be why it did."""
    if not (new.partial or new.failure):
        return
    reached = [before for before, _ in common]
    for gate in gates:
        for point in base.points:
            if gate.load is None and point not in reached:
                yield Judgement(
                    gate=gate.text,
                    load=point.label,
                    outcome="undecided",
                    evidence="new ended before this load",
                )


def _judge(gate: Gate, pair: Pair, levels: _Levels) -> Judgement:
    found = change(gate.figure, pair[0].repeats, pair[1].repeats)
    label = pair[1].label
    if found is None:
        missing = _missing(gate, pair)
        # Where no request completes any more there is no latency to compare.
        outcome: Outcome = "failed" if missing == "new" else "undecided"
        return Judgement(
            gate=gate.text, load=label, outcome=outcome, evidence=f"{missing} has no such figure"
        )
    limit = _limit(gate, found)
    outcome = _outcome(gate, found, limit, levels)
    # The end that proves a limit broken is the one away from it.
    low, high = (levels.broken, levels.kept) if gate.above else (levels.kept, levels.broken)
    if gate.kind == "absolute":
        shown = _difference(found, label, low, high).model_copy(update={"detectable": None})
        why = evidence_alone(shown, *_alone(found, low, high))
    else:
        shown = _difference(found, label, low, high, limit=limit, downward=not gate.above)
        why = evidence(outcome, shown)
    return Judgement(gate=gate.text, load=label, outcome=outcome, evidence=why, difference=shown)


def _alone(found: Change, low: float, high: float) -> tuple[float | None, float | None]:
    """Between what the new figure itself lies, as surely as ``low`` and ``high``."""
    if found.spread is None:
        return None, None
    below, above = (
        t_quantile(level, found.spread.degrees) * found.spread.new for level in (low, high)
    )
    if found.figure.is_share:
        return found.new - below, found.new + above
    return found.new * math.exp(-below), found.new * math.exp(min(above, 100.0))


def _missing(gate: Gate, pair: Pair) -> str:
    has = any(gate.figure.key in repeat.figures for repeat in pair[0].repeats)
    return "new" if has else "base"


def _limit(gate: Gate, found: Change) -> float:
    """The limit on the scale of changes; an absolute one as the change that reaches it."""
    if gate.kind == "part":
        return math.log1p(gate.limit)
    if gate.kind == "absolute":
        return found.between(found.base, gate.limit)
    return found.between(found.base, found.base + gate.limit)


def _outcome(gate: Gate, found: Change, limit: float, levels: _Levels) -> Outcome:
    sign = 1.0 if gate.above else -1.0
    absolute = gate.kind == "absolute"
    if absolute:
        nothing = not found.figure.is_share and gate.limit == 0 < found.new
        size = sign * (math.inf if nothing else found.between(gate.limit, found.new))
        edge = 0.0
    else:
        size, edge = sign * found.size, sign * limit
    if found.spread is None or math.isnan(size) or math.isnan(edge):
        return "undecided"
    error = found.spread.new if absolute else found.spread.both
    broken, kept = (
        t_quantile(level, found.spread.degrees) * error for level in (levels.broken, levels.kept)
    )
    beyond = size > edge
    if absolute or edge <= 0:
        return "passed" if not beyond else "failed" if size - broken > edge else "undecided"
    real = size - broken > 0
    if beyond:
        return "failed" if real else "undecided"
    return "passed" if real or size + kept < edge else "undecided"


def _rows(common: Sequence[Pair], objectives: bool, confidence: float) -> Iterator[Row]:
    found = [
        (pair[1], one)
        for pair in common
        for figure in HEADLINES
        if objectives or figure.metric not in _BY_OBJECTIVE
        if (one := change(figure, pair[0].repeats, pair[1].repeats)) is not None
    ]
    level = _level(confidence, 2 * len(found))
    for point, one in found:
        downward = one.figure.declared.better == "higher"
        shown = _difference(one, point.label, level, level, downward=downward)
        yield Row(**shown.model_dump(), verdict=_verdict(shown))


def _difference(
    found: Change,
    label: str,
    below: float,
    above: float,
    *,
    limit: float = 0.0,
    downward: bool = False,
) -> Difference:
    """``below`` and ``above`` are how surely the change is no less and no more than is shown."""
    declared = found.figure.declared
    size, spread = found.size, found.spread
    low = high = least = None
    if spread is not None and not math.isnan(size):
        low = found.shown(size - t_quantile(below, spread.degrees) * spread.both)
        high = found.shown(size + t_quantile(above, spread.degrees) * spread.both)
        least = resolution(spread, max(below, above), 0.0 if math.isnan(limit) else limit)
        # By as much as times double, rates halve.
        least = abs(found.shown(-least if downward else least))
    return Difference(
        load=label,
        figure=found.figure.name,
        title=found.figure.title,
        unit=declared.unit,
        better=declared.better,
        base=found.base,
        new=found.new,
        change=None if math.isnan(size) else found.shown(size),
        low=low,
        high=high,
        detectable=least,
        method=spread.method if spread else "none",
    )


def _verdict(shown: Difference) -> Verdict:
    if shown.low is None or shown.high is None:
        return "unknown"
    if shown.low <= 0 <= shown.high:
        return "none seen"
    if shown.better == "neither":
        return "changed"
    return "worse" if (shown.low > 0) == (shown.better == "lower") else "better"


def _level(confidence: float, count: int) -> float:
    return 1 - (1 - confidence) / max(count, 1)


def _side(report: BenchReport) -> Side:
    repeats: list[Point] = list(report.points)
    return Side(
        title=report.title,
        created=report.created,
        toolkit_version=report.toolkit_version,
        target=report.target.name,
        url=report.target.url,
        repeats=min(len(point.repeats) for point in repeats),
    )
