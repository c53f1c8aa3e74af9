"""Scenarios: a workload, loads and targets under a name, as YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from toolkit.bench.load import ClosedLoop, Load, OpenLoop, Stop, TraceLoop
from toolkit.bench.metrics import Objective
from toolkit.bench.sweep_search import RateSearch
from toolkit.bench.workload import Independent, PromptFile, TraceFile, Workload
from toolkit.errors import SpecError
from toolkit.spec.document import MappingNode, parse, plain
from toolkit.spec.explain import explain
from toolkit.spec.overrides import Override, apply
from toolkit.spec.problems import Place, refuse_all
from toolkit.spec.section import Section, as_tuple, refuse
from toolkit.spec.units import Duration


def _one_or_many(value: Any) -> Any:
    """A single level is short for a list of one."""
    single = isinstance(value, int | float) and not isinstance(value, bool)
    return (value,) if single else as_tuple(value)


Level = Annotated[int, Field(ge=1, le=16_384)]
Rate = Annotated[float, Field(gt=0, le=100_000)]
Processes = Annotated[int, Field(ge=1, le=256)]
Levels = Annotated[tuple[Level, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
Rates = Annotated[tuple[Rate, ...], BeforeValidator(_one_or_many), Field(min_length=1)]


class ClosedLoads(Section):
    """Closed-loop loads: one for each number of users."""

    type: Literal["closed"] = "closed"
    concurrency: Levels = (8,)
    think_time: Duration = 0.0

    @property
    def loads(self) -> tuple[Load, ...]:
        """Each load."""
        return tuple(
            ClosedLoop(concurrency=users, think_time=self.think_time) for users in self.concurrency
        )


class OpenLoads(Section):
    """Open-loop loads: one for each rate."""

    type: Literal["open"]
    rate: Rates
    arrivals: Literal["poisson", "constant", "burst"] = "poisson"
    burst_size: int = Field(default=8, ge=1, le=10_000)

    @property
    def loads(self) -> tuple[Load, ...]:
        """Each load."""
        return tuple(
            OpenLoop(type="open", rate=rate, arrivals=self.arrivals, burst_size=self.burst_size)
            for rate in self.rate
        )


class TraceLoads(Section):
    """The arrivals of a trace: one load for each speed, or for each mean rate."""

    type: Literal["trace"]
    speedup: Rates = Field(default=(1.0,), description="2 replays it in half the time.")
    rate: Rates | None = Field(default=None, description="Requests a second, in speedup's place.")

    @model_validator(mode="after")
    def _one_factor(self) -> TraceLoads:
        if self.rate and "speedup" in self.model_fields_set:
            raise refuse(
                "both set how fast the trace is replayed",
                fields=("speedup", "rate"),
                hint="give one of them",
            )
        return self

    @property
    def loads(self) -> tuple[Load, ...]:
        """Each load."""
        if self.rate:
            return tuple(TraceLoop(type="trace", rate=rate) for rate in self.rate)
        return tuple(TraceLoop(type="trace", speedup=speed) for speed in self.speedup)


Loads = Annotated[ClosedLoads | OpenLoads | TraceLoads | RateSearch, Field(discriminator="type")]


class SamplingSpec(Section):
    """How tokens are chosen; greedy unless told otherwise."""

    temperature: float = Field(default=0.0, ge=0)
    top_k: int | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0)


class Scenario(Section):
    """A benchmark, but for the server."""

    description: str = ""
    workload: Workload = Independent()
    load: Loads = ClosedLoads()
    stop: Stop = Stop()
    repeats: int = Field(default=1, ge=1, le=1000)
    seed: int | None = Field(
        default=None,
        ge=0,
        description="Of prompts and arrivals. If absent each run draws another, because a server "
        "may still hold an earlier run's prompts in its KV cache.",
    )
    sampling: SamplingSpec = SamplingSpec()
    processes: Literal["auto"] | Processes = Field(
        default="auto", description="Of the client. auto: by the largest load and the cores."
    )
    slo: Objective | None = Field(
        default=None, description="Targets; those of the deployment's classes if absent."
    )

    @model_validator(mode="before")
    @classmethod
    def _trace_comes_at_its_times(cls, data: Any) -> Any:
        # Whoever names a trace and no load wants it replayed.
        if not isinstance(data, dict) or "load" in data:
            return data
        workload = data.get("workload")
        is_trace = isinstance(workload, dict) and workload.get("type") == "trace"
        return {**data, "load": {"type": "trace"}} if is_trace else data

    @model_validator(mode="after")
    def _trace_has_a_trace(self) -> Scenario:
        if isinstance(self.load, TraceLoads) and not isinstance(self.workload, TraceFile):
            raise refuse(
                f"a load of type trace needs a workload of type trace, not {self.workload.type}",
                fields=("load.type", "load"),
                hint="workload: {type: trace, path: FILE}, or another load",
            )
        return self


def shipped() -> dict[str, Path]:
    """The scenarios that come with the package, by name."""
    here = Path(__file__).resolve().parent
    for folder in (here / "scenarios", here.parents[1] / "benchmarks" / "scenarios"):
        if folder.is_dir():
            return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return {}


def load_scenario(name_or_path: str, overrides: Sequence[Override] = ()) -> Scenario:
    """A shipped scenario by its name, or one from a file; ``overrides`` are laid over it.

    Raises:
        SpecError: there is no such scenario, or it is wrong, with the line.
    """
    known = shipped()
    path = known.get(name_or_path, Path(name_or_path))
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"no scenario {name_or_path!r}: {getattr(error, 'strerror', None) or error}",
            hint=f"shipped: {', '.join(known)}; or give the path of a YAML file",
        ) from error
    return _beside(parse_scenario(source, str(path), overrides), path.parent)


def parse_scenario(source: str, label: str, overrides: Sequence[Override] = ()) -> Scenario:
    """The scenario that a YAML text describes; ``label`` names it in errors.

    Raises:
        SpecError: ``where`` is the place of the first mistake.
    """
    root = parse(source, label, environ=None)
    if root is None:
        root = MappingNode({}, Place(label, 1, 1))
    if not isinstance(root, MappingNode):
        raise SpecError("a scenario holds sections such as workload:", where=str(root.place))
    root = apply(root, overrides)
    try:
        return Scenario.model_validate(plain(root))
    except ValidationError as error:
        refuse_all(explain(error, Scenario, root))
        raise


def _beside(scenario: Scenario, folder: Path) -> Scenario:
    """A file of prompts or a trace is meant from where the scenario is."""
    workload = scenario.workload
    if not isinstance(workload, PromptFile | TraceFile):
        return scenario
    path = str((folder / Path(workload.path).expanduser()).resolve())
    return scenario.model_copy(update={"workload": workload.model_copy(update={"path": path})})
