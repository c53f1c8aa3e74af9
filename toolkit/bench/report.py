"""The report as data: what ``report.json`` holds. Its schema has a version.

Times of day are UTC in ISO 8601; everything else is in the unit that the metric declares
(:mod:`toolkit.bench.metrics`).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from toolkit.bench.load import Load, Stop
from toolkit.bench.metrics import Objective
from toolkit.bench.saturation import ClientHealth
from toolkit.bench.sweep_report import FoundRate
from toolkit.bench.workload import Workload

SCHEMA_VERSION = 1


class Part(BaseModel):
    """A part of the report: immutable."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")


class Estimate(Part):
    """A figure and, where one can be given, its 95% confidence interval.

    ``method`` tells where the interval comes from: ``t`` from independent repeats,
    ``bootstrap`` from the requests of a single one, ``none``.
    """

    value: float
    low: float | None = None
    high: float | None = None
    method: str = "none"


class Distribution(Part):
    """A sampled metric: ``stats`` holds ``mean`` and each declared percentile (``p50``);
    ``curve`` the values at 0, 1, ... 100 percent, over all repeats."""

    unit: str
    count: int
    stats: dict[str, Estimate]
    curve: tuple[float, ...]


class Span(Part):
    """One request, in seconds from the start of its repeat's window (warm-up is negative)."""

    intended: float
    first: float | None
    ended: float
    output_tokens: int
    turn: int = 0
    counted: bool = True
    error: str | None = None


class ErrorKind(Part):
    """Failures of one kind, with one message as an example."""

    kind: str
    count: int
    example: str


class Series(Part):
    """Output tokens per second over the window, in equal steps of ``step`` seconds."""

    step: float
    tokens_per_s: tuple[float, ...]


class Repeat(Part):
    """One run of one load."""

    seed: str
    window_s: float
    requests: int = Field(description="Requests that count.")
    completed: int
    figures: dict[str, float] = Field(description="Totals, and means and percentiles as ttft.p50.")
    standard_errors: dict[str, float] = Field(
        default_factory=dict,
        description="Of figures, as a part of them, of shares in points: what the stretches of "
        "this run alone say. Empty where too few requests stand behind it.",
    )
    blocks: int = Field(default=0, description="How many stretches told the standard errors.")
    client: ClientHealth
    series: Series
    spans: tuple[Span, ...]
    partial: bool = False


class Point(Part):
    """All repeats of one load, summed up."""

    label: str
    load: Load
    distributions: dict[str, Distribution]
    totals: dict[str, Estimate]
    errors: tuple[ErrorKind, ...]
    repeats: tuple[Repeat, ...]


class TargetFacts(Part):
    """Who was measured."""

    name: str
    protocol: str
    url: str = ""
    server: str = ""


class Machine(Part):
    """Where the client ran (and the server, if on the same machine)."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str


class BenchReport(Part):
    """One benchmark: a workload under one load or several."""

    schema_version: int = SCHEMA_VERSION
    toolkit_version: str
    created: str
    title: str
    partial: bool = Field(description="Interrupted: what is here was measured, but not all.")
    target: TargetFacts
    machine: Machine
    workload: Workload
    stop: Stop
    objectives: dict[str, Objective]
    seed: int
    prompt_unit: str = Field(description="Prompt lengths count these: tokens, or words.")
    tokens_counted_by: str = Field(description="server, tokenizer or responses.")
    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()
    failure: str | None = Field(default=None, description="Why it ended early, but for Ctrl-C.")
    found_rate: FoundRate | None = Field(default=None, description="Of a search for a rate.")
