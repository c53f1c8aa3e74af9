"""The report of an ablation as data: what ``ablation.json`` holds. Its schema has a version."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from toolkit.bench.load import Load, Stop
from toolkit.bench.metrics import Objective
from toolkit.bench.report import Estimate, Machine, Part
from toolkit.bench.workload import Workload

SCHEMA_VERSION = 1

Against = Literal["first", "previous", "removed"]
"""What a rung is compared with: the first one measured, the step before it, or (``removed``)
full against full without one feature."""


class RungFacts(Part):
    """One deployment that was measured.

    Attributes:
        adds: Features that the step has over the one before it.
        on: All features that it has.
        changes: What differs from the deployment file, as ``field = value``.
        is_step: On the ladder, not full without something.
        digest: Of the model repository that was served.
        pays: Where what it adds is known to pay, for a step that did not help.
    """

    key: str
    title: str
    adds: tuple[str, ...] = ()
    on: tuple[str, ...] = ()
    is_step: bool = True
    is_full: bool = False
    protocol: str = "grpc"
    changes: tuple[str, ...] = ()
    digest: str = ""
    pays: str = ""


class Removal(Part):
    """Which rung is full without a feature."""

    feature: str
    title: str
    rung: str


class LeftOutStep(Part):
    """A step that was not measured on its own, and why."""

    key: str
    title: str
    reason: str


class RungResult(Part):
    """What one rung did under one load.

    Attributes:
        rounds: Each metric's figure in each round; None where the round has none.
        figures: Their means, with Student's intervals.
        curves: For ``ttft``, ``ttft_later`` and ``itl`` the values at 0, 1, ... 100 percent of
            the requests (or pauses), averaged over the rounds.
    """

    rung: str
    requests: int
    completed: int
    rounds: dict[str, tuple[float | None, ...]]
    figures: dict[str, Estimate]
    curves: dict[str, tuple[float, ...]]


class LoadResults(Part):
    """All rungs under one load."""

    label: str
    load: Load
    results: tuple[RungResult, ...]

    def of(self, rung: str) -> RungResult | None:
        """The results of one rung."""
        return next((one for one in self.results if one.rung == rung), None)


class Comparison(Part):
    """One rung against another in one metric.

    ``times`` is how many times better it is: above 1 is better, whichever way the metric goes.
    Its interval is Student's over the logarithms of the rounds' ratios; ``rounds`` counts them.
    """

    load: str
    rung: str
    against: Against
    base: str
    feature: str = ""
    metric: str
    times: Estimate
    rounds: int
    words: str


class AblationReport(Part):
    """One ablation."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["ablation"] = "ablation"
    toolkit_version: str
    created: str
    title: str
    partial: bool = Field(description="Interrupted: what is here was measured, but not all.")
    machine: Machine
    workload: Workload
    stop: Stop
    objectives: dict[str, Objective]
    seed: int
    rounds: int = Field(description="Rounds that were asked for.")
    rungs: tuple[RungFacts, ...]
    removals: tuple[Removal, ...] = ()
    left_out: tuple[LeftOutStep, ...] = ()
    loads: tuple[LoadResults, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    def facts(self, key: str) -> RungFacts:
        """What is known of the rung ``key``."""
        return next(one for one in self.rungs if one.key == key)

    def find(
        self, load: str, rung: str, against: Against, metric: str, feature: str = ""
    ) -> Comparison | None:
        """One comparison."""
        wanted = (load, rung, against, metric, feature)
        return next(
            (
                one
                for one in self.comparisons
                if (one.load, one.rung, one.against, one.metric, one.feature) == wanted
            ),
            None,
        )
