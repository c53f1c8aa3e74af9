"""Find the highest rate that a target serves within its SLO: goodput at a given share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from toolkit.bench.client import Client
from toolkit.bench.load import Load
from toolkit.bench.metrics import Window, mean_in_flight
from toolkit.bench.report import BenchReport
from toolkit.bench.runner import Options, assemble
from toolkit.bench.summary import Measurement
from toolkit.bench.sweep_report import FoundRate, Probe
from toolkit.bench.sweep_search import Outcome, RateSearch, Search
from toolkit.bench.target import Target
from toolkit.bench.workload import TraceFile, Workload
from toolkit.errors import SpecError
from toolkit.progress import Progress, Silent


def find_rate(
    target: Target,
    workload: Workload,
    search: RateSearch,
    options: Options,
    *,
    progress: Progress | None = None,
) -> BenchReport:
    """Search the highest rate; the report has a point for each rate and ``found_rate``.

    Each window has prompts of its own and begins when all answers of the last one are in.
    Ctrl-C ends the search; the report then holds what was measured until then.

    Raises:
        SpecError: there is no SLO to hold requests against, or the workload has no arrivals.
        ServerError: the target cannot be reached, or no request came to its end.
        KeyboardInterrupt: Ctrl-C before anything was measured.
    """
    if not any(one.limits for one in options.objectives.values()):
        raise SpecError(
            "there is no SLO to find a rate for",
            where="--find-rate",
            hint="set --slo-ttft-ms or --slo-itl-ms, slo: in the scenario, or a class's target",
        )
    if search.arrivals == "trace" and not isinstance(workload, TraceFile):
        raise SpecError(
            "arrivals as in a trace need a workload of type trace", where="load.arrivals"
        )
    client = Client(target, workload, options, progress or Silent())
    work = _Work(client, search, options, progress or Silent())
    asyncio.run(work.run())
    measured = sorted(work.runs.items())
    report = assemble(
        client, workload, options, [(work.loads[rate], runs) for rate, runs in measured]
    )
    return report.model_copy(update={"found_rate": work.found()})


@dataclass
class _Work:
    """A search as it goes."""

    client: Client
    spec: RateSearch
    options: Options
    progress: Progress
    loads: dict[float, Load] = field(default_factory=dict)
    runs: dict[float, list[Measurement]] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    dry: bool = False

    def __post_init__(self) -> None:
        self.search = Search(self.spec)

    async def run(self) -> None:
        async with self.client:
            while (rate := self.search.next()) is not None and not self.client.ended:
                load = self.loads.setdefault(rate, self.spec.load(rate))
                options = replace(self.options, stop=self.spec.stop(rate, self.options.stop))
                found = await self.client.measure(load, f"probe {len(self.probes) + 1}", options)
                if found is None and not self.client.ended:
                    # A window without a request tells nothing, and neither would another one.
                    self.dry = True
                    return
                if found is not None:
                    self._keep(rate, load, found)

    def found(self) -> FoundRate:
        told = self.search.outcomes
        verdicts = {self.loads[rate].label: self.search.verdict(rate) for rate in told}
        return FoundRate(
            search=self.spec,
            rate=self.search.met,
            above=self.search.missed,
            bound="workload" if self.dry else self.search.bound,
            verdicts={label: verdict for label, verdict in verdicts.items() if verdict},
            probes=tuple(self.probes),
        )

    def _keep(self, rate: float, load: Load, found: Measurement) -> None:
        self.runs.setdefault(rate, []).append(found)
        window = found.window
        saturated, in_flight = found.client.saturated, mean_in_flight(window)
        outcome = Outcome(_good(window), len(window.judged), saturated, in_flight)
        self.probes.append(
            Probe(
                rate=rate,
                label=load.label,
                window_s=window.length,
                good=outcome.good,
                judged=outcome.judged,
                goodput=outcome.good / window.length,
                client_saturated=outcome.saturated,
                partial=found.partial,
            )
        )
        if found.partial:
            return
        self.search.tell(rate, outcome)
        verdict = self.search.verdict(rate)
        told = {"met": "within the SLO", "missed": "not enough", "client": "client saturated"}
        self.progress.note(
            f"{load.label}: {outcome.share:.1%} good, {told[verdict] if verdict else 'once more'}"
        )


def _good(window: Window) -> int:
    return sum(objective.met(record) for objective, record in window.judged)
