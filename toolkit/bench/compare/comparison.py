"""The comparison as data: what ``--json`` prints. Its schema has a version.

Changes are parts of the base (0.1 is 10% more), those of shares points (0.01 is one).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolkit.bench.compare.change import Method
from toolkit.bench.metrics import Better
from toolkit.bench.report import Part

SCHEMA_VERSION = 1

Verdict = Literal["better", "worse", "changed", "none seen", "unknown"]
Outcome = Literal["passed", "failed", "undecided"]


class Side(Part):
    """One of the two reports."""

    title: str
    created: str
    toolkit_version: str
    target: str
    url: str
    repeats: int


class Difference(Part):
    """A figure under one load, before and after.

    ``low`` and ``high`` hold the change with the comparison's confidence, in all rows together.
    Beside a limit each stands alone: the one away from it proves it broken, with the confidence
    for all limits together, the other proves it kept. ``detectable`` is the smallest change for
    the worse that would have shown nine times in ten, without its sign; null where too little
    was measured to tell.
    """

    load: str
    figure: str
    title: str
    unit: str
    better: Better
    base: float
    new: float
    change: float | None = Field(description="Null where the base is zero.")
    low: float | None = None
    high: float | None = None
    detectable: float | None = None
    method: Method = "none"


class Row(Difference):
    """A difference that nobody set a limit for."""

    verdict: Verdict


class Judgement(Part):
    """One limit under one load."""

    gate: str
    load: str
    outcome: Outcome
    evidence: str
    difference: Difference | None = Field(
        default=None, description="Null where one side has no such figure."
    )


class Comparison(Part):
    """Two reports of the same work."""

    schema_version: int = SCHEMA_VERSION
    toolkit_version: str
    confidence: float = Field(
        description="How sure it is that no limit (no row) fails if nothing changed."
    )
    base: Side
    new: Side
    differing: tuple[str, ...] = Field(description="What else is not the same.")
    rows: tuple[Row, ...]
    judgements: tuple[Judgement, ...]

    def having(self, outcome: Outcome) -> tuple[Judgement, ...]:
        """The judgements of one outcome."""
        return tuple(one for one in self.judgements if one.outcome == outcome)
