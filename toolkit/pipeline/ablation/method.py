"""How an ablation measures, and what makes two of them the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from toolkit.bench.load import ClosedLoop, Load, Stop
from toolkit.bench.metrics import Objectives
from toolkit.bench.records import Sampling
from toolkit.bench.scenario import Scenario
from toolkit.bench.sweep_search import RateSearch
from toolkit.bench.workers import processes_of
from toolkit.bench.workload import Workload
from toolkit.errors import SpecError
from toolkit.spec.models import Deployment


@dataclass(frozen=True)
class Method:
    """The workload, the loads and how long.

    Attributes:
        rounds: Times that every rung is measured.
        seed: Of the first round's prompts; None draws one, or takes that of what is resumed.
        timeout: Seconds for one request; the lower rungs make requests wait long.
        tokenizer: In place of the deployment's own.
        processes: Of the client.
    """

    title: str
    workload: Workload
    loads: tuple[Load, ...]
    stop: Stop
    rounds: int
    objectives: Objectives
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    timeout: float = 3600.0
    tokenizer: Path | None = None
    processes: int = 1

    @classmethod
    def of(cls, scenario: Scenario, deployment: Deployment, title: str) -> Method:
        """As a scenario says, held against its targets or those of the deployment's classes.

        Raises:
            SpecError: the scenario searches for a rate, which every rung would find elsewhere.
        """
        from toolkit.bench.metrics import Objective

        if isinstance(scenario.load, RateSearch):
            raise SpecError(
                "rungs are compared under the same loads, and a search has none",
                where="load",
                hint="give rates or users: --rate 1,2,4 or --concurrency 32",
            )
        classes = {
            name: Objective(ttft_ms=one.ttft_ms, itl_ms=one.itl_ms)
            for name, one in deployment.scheduling.classes.items()
        }
        objectives = {"": next(iter(classes.values())), **classes}
        return cls(
            title=title,
            workload=scenario.workload,
            loads=scenario.load.loads,
            stop=scenario.stop,
            rounds=scenario.repeats,
            objectives={"": scenario.slo} if scenario.slo else objectives,
            sampling=Sampling(**scenario.sampling.model_dump()),
            seed=scenario.seed,
            processes=processes_of(scenario),
        )

    @property
    def users(self) -> int:
        """Requests that may wait at once: those of a closed loop's users; 1024 of an open one."""
        return max(
            load.concurrency if isinstance(load, ClosedLoop) else 1024 for load in self.loads
        )

    def identity(self, seed: int) -> Identity:
        """What has to be equal for slots of another run to count in this one."""
        return Identity(
            workload=self.workload,
            loads=self.loads,
            stop=self.stop,
            sampling={name: getattr(self.sampling, name) for name in Sampling.__slots__},
            objectives=dict(self.objectives),
            tokenizer=str(self.tokenizer or ""),
            seed=seed,
        )


class Identity(BaseModel):
    """All that decides a slot's figures beside the server; one of two may be without a seed."""

    model_config = ConfigDict(frozen=True)

    workload: Workload
    loads: tuple[Load, ...]
    stop: Stop
    sampling: dict[str, float | int | None]
    objectives: Objectives
    tokenizer: str
    seed: int

    def like(self, other: Identity) -> bool:
        """Whether they differ in the seed at most."""
        return self.model_copy(update={"seed": other.seed}) == other
