"""Scheduling at saturation: latency-aware against first come first served, and as simulated.

    python benchmarks/gateway_saturation.py examples/smollm2.yaml

Needs the file deployed. Short interactive and long batch requests arrive at random, together at
1.5 times what the engine can do; the same arrivals, with other words, go through a gateway of
either policy (A B, B A ...). The simulator is fitted to other runs, none of which it predicts: a
calm one, and backlogs of requests that come within a second. There is one before, between and after
the measured runs, because a machine's speed drifts, and at 1.5 times the capacity an error of 1%
in the speed is one of 2% in the queue. Takes about 17 minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gateway_process import gateway
from saturation_figures import CLASSES, Figures, Seen, measured, play, samples, simulated, trace

from toolkit.bench.endpoint import find_deployed
from toolkit.bench.records import RequestRecord
from toolkit.bench.vocabulary import Tokens
from toolkit.gateway.simulation import EngineModel, Planned, RequestSample, fit_requests
from toolkit.spec.gateway import RequestClass, Scheduling
from toolkit.spec.loading import load
from toolkit.spec.models import Deployment

POLICIES = ("fcfs", "latency_aware")
BACKLOG = 4  # times the slots: how many come at once
UNLIMITED = {name: RequestClass(weight=each.weight) for name, each in CLASSES.items()}
"""For the fit: whoever is refused would count as served."""
QUIET = 1.2  # between the fastest and the slowest backlog
APART = 1e4  # seconds between two fitted runs, so that they do not seem to be one


@dataclass
class Bench:
    """What is measured, and what came of it."""

    options: argparse.Namespace
    model: str
    words: Tokens
    fitting: list[RequestSample] = field(default_factory=list)
    phases: list[dict[str, object]] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)

    def run(
        self,
        what: str,
        planned: Sequence[Planned],
        policy: str = "fcfs",
        classes: Mapping[str, RequestClass] = CLASSES,
    ) -> list[Seen]:
        """Play a trace through a gateway of its own."""
        print(f"{time.strftime('%H:%M:%S')} {what}: {len(planned)} requests", flush=True)
        written = {name: one.model_dump(exclude_none=True) for name, one in classes.items()}
        settings = [
            f"scheduling.classes={json.dumps(written)}",
            f"scheduling.policy={policy}",
        ]
        root = self.options.workspace
        words = ["--workspace", str(root)] if root else []
        salt = f"{self.options.seed}-{what}-{len(self.phases)}"
        with gateway(self.options.deployment, settings, words) as port:
            seen = asyncio.run(play(planned, port, self.model, self.words, salt))
        self.phases.append({"what": what, "requests": [_row(one, r) for one, r in seen]})
        return seen

    def learn(self, what: str, planned: Sequence[Planned]) -> None:
        """A run for the fit; how many requests a second it came to."""
        seen = self.run(what, planned, classes=UNLIMITED)
        assert all(r.ok for _, r in seen), "a request for the fit failed"
        self.fitting += samples(seen, APART * len(self.phases))
        took = max(r.ended for _, r in seen) - min(r.sent for _, r in seen)
        self.speeds.append(len(seen) / took)

    def backlog(self, slots: int) -> None:
        """Nearly all at once, in an order that gateway and fit agree on.

        The engine is full, and mixes prompts with answers, as when it is saturated.
        """
        planned = trace(8.0, 120, 13 + len(self.phases))[: BACKLOG * slots]
        self.learn("backlog", [replace(one, at=0.005 * n) for n, one in enumerate(planned)])
        print(f"         {self.speeds[-1]:.2f} requests/s", flush=True)


def _row(one: Planned, record: RequestRecord) -> list[object]:
    """A request as it is kept: class, tokens, and when what happened to it."""
    times = [record.request.intended, record.sent, *record.responses[:1], record.ended]
    return [one.request_class, one.at, one.prompt_tokens, one.output_tokens, times]


def measure(bench: Bench, slots: int) -> dict[str, list[tuple[list[Planned], Figures]]]:
    """By policy: what arrived and what came of it, fitted runs before, between and after."""
    options = bench.options
    bench.learn("calm", trace(0.8, 40, 11))
    bench.backlog(slots)
    rate = options.overload * bench.speeds[-1]
    found: dict[str, list[tuple[list[Planned], Figures]]] = {name: [] for name in POLICIES}
    for number in range(options.rounds):
        planned = trace(rate, options.seconds, options.seed + number)
        for policy in POLICIES if number % 2 == 0 else POLICIES[::-1]:
            seen = bench.run(policy, planned, policy)
            found[policy].append((planned, measured(seen, options.seconds)))
            bench.backlog(slots)
    return found


def mean(figures: Sequence[Figures]) -> Figures:
    """Of each figure, over the rounds."""
    rows = [asdict(one) for one in figures]
    return Figures(**{name: statistics.fmean(row[name] for row in rows) for name in rows[0]})


def report(
    found: dict[str, list[tuple[list[Planned], Figures]]], engine: EngineModel, seconds: float
) -> str:
    """Markdown: every round, measured and simulated, and the verdicts on the means."""
    names = list(Figures.__annotations__)
    lines = ["| | " + " | ".join(name.replace("_", " ") for name in names) + " |"]
    lines.append("| --- |" + " ---: |" * len(names))

    def row(label: str, figures: Figures) -> None:
        values = " | ".join(f"{value:.2f}" for value in asdict(figures).values())
        lines.append(f"| {label} | {values} |")

    means = {}
    for policy, rounds in found.items():
        scheduling = Scheduling.model_validate({"policy": policy, "classes": CLASSES})
        told = [simulated(planned, scheduling, engine, seconds) for planned, _ in rounds]
        for number, ((_, real), guess) in enumerate(zip(rounds, told, strict=True), 1):
            row(f"{policy} {number}", real)
            row(f"{policy} {number}, simulated", guess)
        means[policy] = mean([real for _, real in rounds]), mean(told)
        row(f"{policy}, mean", means[policy][0])
        row(f"{policy}, mean, simulated", means[policy][1])
    fcfs, aware = (means[policy][0] for policy in POLICIES)
    lines += [
        "",
        "Latency-aware of order of arrival's: interactive p95 TTFT "
        f"{aware.interactive_ttft_p95 / fcfs.interactive_ttft_p95:.3f} (at most 0.2 wanted), "
        f"tokens/s {aware.tokens_per_s / fcfs.tokens_per_s:.3f} (at least 0.97 wanted).",
        "",
    ]
    lines += [f"Simulated over measured, {name}: {_ratio(*means[name])}." for name in POLICIES]
    return "\n".join(lines)


def _ratio(real: Figures, told: Figures) -> str:
    ttft = told.interactive_ttft_p95 / real.interactive_ttft_p95
    return (
        f"interactive p95 TTFT {ttft:.2f}, tokens/s {told.tokens_per_s / real.tokens_per_s:.2f}"
        " (0.8 to 1.2 wanted)"
    )


def blank(deployment: Deployment) -> EngineModel:
    """What the file says of the engine; its costs are still to be found."""
    limits = deployment.engine.limits
    return EngineModel(
        slots=limits.max_batch_size,
        kv_tokens=limits.max_batch_size * limits.max_seq_len,
        max_num_tokens=limits.max_num_tokens or 1024,
    )


def main() -> None:
    """Measure both policies in turn, fit, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="JSON file for every request's times")
    options = parser.parse_args()
    deployment = load(options.deployment).deployment
    deployed = find_deployed(
        deployment, options.workspace or options.deployment.parent / ".toolkit"
    )
    assert deployed.tokenizer, "the repository has no tokenizer"
    bench = Bench(options, deployment.name, Tokens(deployed.tokenizer))
    engine = blank(deployment)
    found = measure(bench, engine.slots)
    if options.keep:
        options.keep.write_text(json.dumps(bench.phases))
    engine = fit_requests(engine, bench.fitting)
    backlogs = bench.speeds[1:]
    told = ", ".join(f"{speed:.2f}" for speed in backlogs)
    print(f"\nengine {asdict(engine)}\nrequests/s of the backlogs: {told}")
    if max(backlogs) > QUIET * min(backlogs):
        print("The machine was not quiet: its speed changed by more than the simulator may err.")
    print()
    print(report(found, engine, options.seconds))


if __name__ == "__main__":
    main()
