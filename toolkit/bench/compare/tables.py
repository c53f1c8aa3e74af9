"""A comparison as tables, Markdown and JUnit cases."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.bench import rows
from toolkit.bench.compare import wording
from toolkit.bench.compare.comparison import Comparison, Difference, Judgement
from toolkit.junit import Case

_MARKS = {"passed": "passed", "failed": "FAILED", "undecided": "cannot tell"}


def gates_table(found: Comparison) -> rows.Table:
    """One row a limit and load."""
    return rows.Table(
        "Limits",
        ("limit", "load", "base", "new", "change", "between", "sure to show", "verdict"),
        tuple(
            (one.gate, one.load, *_cells(one.difference), _MARKS[one.outcome])
            for one in found.judgements
        ),
    )


def changes_table(found: Comparison) -> rows.Table:
    """One row a figure and load."""
    return rows.Table(
        "Changes",
        ("figure", "load", "base", "new", "change", "between", "sure to show", "verdict"),
        tuple((one.title, one.load, *_cells(one), one.verdict) for one in found.rows),
    )


def comparison_markdown(found: Comparison) -> str:
    """The whole comparison."""
    parts = [f"# {found.new.title}: compared", "\n".join(f"- {line}" for line in facts(found))]
    if found.differing:
        parts.append("Not the same:\n\n" + "\n".join(f"- {line}" for line in found.differing))
    if found.judgements:
        parts += ["## Limits", rows.markdown(gates_table(found))]
    parts += ["## Changes", rows.markdown(changes_table(found)), explanation(found)]
    return "\n\n".join(parts) + "\n"


def facts(found: Comparison) -> Iterator[str]:
    """What was compared."""
    for name, side in (("base", found.base), ("new", found.new)):
        repeats = f"{side.repeats} repeat{'' if side.repeats == 1 else 's'}"
        yield f"{name}: {side.title} at {side.url or side.target}, {side.created}, {repeats}"


def explanation(found: Comparison) -> str:
    """How to read the tables."""
    alarms = 1 / (1 - found.confidence)
    text = (
        "If nothing changed, no limit fails, and no row's interval excludes it, in all but at "
        f"most one of {alarms:.3g} comparisons each. A change as large as under \u201csure to "
        "show\u201d is found nine times in ten; where that is too much, measure longer or with "
        "more --repeats."
    )
    singles = min(found.base.repeats, found.new.repeats) < 2
    return f"{text} {_SINGLE}" if singles else text


_SINGLE = "One repeat cannot show how runs differ, so 3% is assumed; --repeats 5 measures it."


def cases(found: Comparison) -> list[Case]:
    """Each limit and load as a test case; what could not be decided is an error."""
    return [_case(one) for one in found.judgements]


def _case(one: Judgement) -> Case:
    outcome = "error" if one.outcome == "undecided" else one.outcome
    return Case(f"{one.gate} [{one.load}]", outcome, one.evidence)


def _cells(shown: Difference | None) -> tuple[str, ...]:
    if shown is None:
        return (wording.MISSING,) * 5
    return (
        wording.value(shown, shown.base),
        wording.value(shown, shown.new),
        wording.signed(shown, shown.change),
        wording.interval(shown),
        wording.detectable(shown),
    )
