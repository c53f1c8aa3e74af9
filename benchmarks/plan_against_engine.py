"""What the plan says of the CPU engine against what the engine does.

    python benchmarks/plan_against_engine.py examples/smollm2.yaml --result plan.md

Needs the file built (toolkit build); no server. The engine of the newest repository runs in this
process. Requests begin together, so that a step holds exactly so many of them and no prompt; the
median of a step's time counts. Efficiency factors are fitted to some numbers of requests and
predict the others. All numbers are measured in turn, round after round, so that drift meets those
of the fit and those of the check alike. Then users without a pause, whose prompts are computed
between the others' tokens, are held against the same factors. Memory is the peak of this process.
Takes about four minutes on two idle cores; rounds end, and users without a pause are left out,
where --minutes would not do.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import itertools
import os
import random
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from engine_target import EngineTarget

from toolkit.bench.chat import PlainChat
from toolkit.bench.host_speed import HostSpeed, measure_host
from toolkit.bench.lengths import Fixed
from toolkit.bench.load import ClosedLoop, Stop
from toolkit.bench.machine import this_machine
from toolkit.bench.records import Request, RequestRecord
from toolkit.bench.runner import Options, measure
from toolkit.bench.summary import summarize_point
from toolkit.bench.vocabulary import Tokens
from toolkit.bench.workload import Independent, Material
from toolkit.capacity.calibration import Calibration, Observation, calibrate
from toolkit.capacity.serving import Replica, decoding_tpot, with_users
from toolkit.capacity.traffic import Traffic
from toolkit.pipeline.architectures import target_architecture
from toolkit.pipeline.planning import make_plan
from toolkit.pipeline.sizing import host_device, replica_of
from toolkit.spec.loading import load
from toolkit.workspace import Workspace

GIB = 2**30


@dataclass(frozen=True)
class Method:
    """Prompts and answers of one length, at some numbers of requests."""

    words: Tokens
    prompt: int
    output: int
    fit: tuple[int, ...]
    check: tuple[int, ...]
    steady_s: float

    @property
    def traffic(self) -> Traffic:
        """The same for the estimate."""
        return Traffic(self.prompt, self.output)

    @property
    def batches(self) -> list[int]:
        """All numbers of requests."""
        return sorted({*self.fit, *self.check})


@dataclass
class Found:
    """What was measured: steps and output tokens a second by requests, bytes of memory."""

    steps: dict[int, list[float]] = field(default_factory=dict)
    medians: dict[int, list[float]] = field(default_factory=dict)
    steady: dict[int, float] = field(default_factory=dict)
    peak: int = 0

    def step(self, batch: int) -> float:
        """Seconds, the median of all steps."""
        return statistics.median(self.steps[batch])

    def spread(self, batch: int) -> float:
        """Half of what the rounds' medians differ by, of their median."""
        rounds = self.medians[batch]
        return (max(rounds) - min(rounds)) / 2 / statistics.median(rounds)


async def decode(
    target: EngineTarget, method: Method, batch: int, dice: random.Random
) -> list[float]:
    """Seconds of each step that ``batch`` requests shared, prompts being over."""
    now = time.perf_counter()
    requests = [
        Request(
            number=dice.getrandbits(60),
            prompt=method.words.make(method.prompt, dice),
            max_tokens=method.output,
            min_tokens=method.output,
            intended=now,
        )
        for _ in range(batch)
    ]
    records: list[RequestRecord] = await asyncio.gather(*map(target.generate, requests))
    begin = max(record.responses[0] for record in records)
    end = min(record.responses[-1] for record in records)
    last = max(records, key=lambda record: record.responses[0])
    times = [when for when in last.responses if begin <= when <= end]
    return [after - before for before, after in itertools.pairwise(times)]


async def steady(target: EngineTarget, method: Method, users: int) -> float:
    """Output tokens a second of so many users without a pause."""
    lengths = Fixed(tokens=method.prompt), Fixed(tokens=method.output)
    workload = Independent(prompt_tokens=lengths[0], output_tokens=lengths[1])
    load_ = ClosedLoop(concurrency=users)
    stop = Stop(duration=method.steady_s, warmup=method.steady_s / 4)
    options = Options(stop=stop, material=Material(method.words, PlainChat(), f"steady-{users}"))
    run = await measure(target, workload, load_, options, label=f"{users} users")
    assert run is not None, "nothing was measured"
    failed = [record.failure for record in run.window.present if record.failure]
    assert not failed, failed[:3]
    return summarize_point(load_, [run]).totals["output_throughput"].value


async def run_all(model: Path, method: Method, rounds: int, minutes: float) -> Found:
    """Everything; at least two rounds, and what the minutes allow of the rest."""
    target, found, dice = EngineTarget(model), Found(), random.Random(1)
    until = time.monotonic() + 60 * minutes
    await target.open()
    try:
        for batch in (1, max(method.batches)):
            await decode(target, method, batch, dice)
        for number in range(rounds):
            begun = time.monotonic()
            await one_round(target, method, found, dice, number)
            spent = time.monotonic() - begun
            if number and time.monotonic() + spent > until - 60 * minutes / 3:
                break
        found.peak = peak_memory()
        for users in method.check if method.steady_s else ():
            # The window stays open until every user has begun a request in it.
            if time.monotonic() + method.steady_s + answer_s(found, method, users) > until:
                say(f"{users} users without a pause: left out, it would take too long")
                continue
            found.steady[users] = await steady(target, method, users)
            say(f"{users} users without a pause: {found.steady[users]:.1f} tokens/s")
    finally:
        await target.close()
    return found


async def one_round(
    target: EngineTarget, method: Method, found: Found, dice: random.Random, number: int
) -> None:
    """Every number of requests once, up and down in turn."""
    for batch in method.batches if number % 2 == 0 else method.batches[::-1]:
        steps = await decode(target, method, batch, dice)
        found.steps.setdefault(batch, []).extend(steps)
        found.medians.setdefault(batch, []).append(statistics.median(steps))
        say(f"round {number + 1}, {batch} requests: {1000 * found.step(batch):.1f} ms")


def answer_s(found: Found, method: Method, users: int) -> float:
    """Seconds that a user's two requests take, prompts of the others counted."""
    return 2 * method.output * found.step(max(b for b in found.steps if b <= users)) * 2


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def built(root: Path, name: str) -> Path:
    """The engine's folder in the newest repository that was built for the deployment."""
    found = sorted(
        (root / "repository").glob(f"*/repository/{name}/1"), key=lambda each: each.stat().st_mtime
    )
    if not found:
        raise SystemExit(f"nothing is built in {root}: toolkit build first")
    return found[-1]


def peak_memory() -> int:
    """The most bytes that this process has had in memory."""
    fields = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    return int(fields[0]) * 1024


def fitted(replica: Replica, found: Found, method: Method) -> Calibration:
    """Factors from the numbers of requests that are there to fit."""
    seen = [
        Observation(str(batch), method.traffic, batch, found.step(batch), together=True)
        for batch in method.fit
    ]
    return calibrate(replica, seen, source="this run")


def decode_table(replica: Replica, found: Found, method: Method) -> list[str]:
    """Measured and predicted tokens a second at each number of requests."""
    rows = [
        "| requests in a step | calibrated on | measured tok/s | predicted tok/s | error |",
        "| ---: | --- | ---: | ---: | ---: |",
    ]
    for batch in method.batches:
        measured = batch / found.step(batch)
        told = batch / decoding_tpot(replica, method.traffic, batch)
        said = "yes" if batch in method.fit else "**no**"
        rows.append(
            f"| {batch} | {said} | {measured:.1f} (± {100 * found.spread(batch):.0f} %) | "
            f"{told:.1f} | {100 * (told / measured - 1):+.1f} % |"
        )
    return rows


def steady_table(replica: Replica, found: Found, method: Method) -> list[str]:
    """The same for users without a pause, none of whom was calibrated on."""
    if not found.steady:
        return []
    rows = [
        "",
        "Users without a pause, prompts computed between the others' tokens, same factors:",
        "",
        "| users | measured tok/s | predicted tok/s | error |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for users, measured in found.steady.items():
        told = with_users(replica, method.traffic, users).output_tokens_per_s
        error = 100 * (told / measured - 1)
        rows.append(f"| {users} | {measured:.1f} | {told:.1f} | {error:+.1f} % |")
    return rows


def memory_lines(memory: Any, found: Found) -> list[str]:
    """The plan's sum against the peak of the process."""
    told = memory.used + memory.pool
    parts = [*((line.name, line.bytes) for line in memory.fixed), ("KV cache", memory.pool)]
    rows = [f"| {name} | {size / GIB:.3f} |" for name, size in parts]
    error = 100 * (told / found.peak - 1)
    return [
        "",
        "| memory, planned | GiB |",
        "| --- | ---: |",
        *rows,
        f"| **all** | {told / GIB:.3f} |",
        "",
        f"Peak of the process that ran the engine: {found.peak / GIB:.3f} GiB, error of the plan "
        f"{error:+.1f} %. That process holds this script's client too.",
    ]


def head(speed: HostSpeed, found: Found, method: Method, deployment: str) -> list[str]:
    """What was measured where."""
    import openvino

    machine, rounds = this_machine(), len(found.medians[method.batches[0]])
    date = datetime.datetime.now(tz=datetime.UTC).date()
    load_average = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return [
        "# The plan against the CPU engine",
        "",
        f"`python benchmarks/plan_against_engine.py {deployment}` on {date}: {machine.cpu}, "
        f"{machine.cores} cores (load average at the end {load_average}), {machine.system}, Python "
        f"{machine.python}, OpenVINO {openvino.get_version().split('-')[0]}.",
        f"The processor was measured to read {speed.bandwidth / 1e9:.1f} GB/s and to compute "
        f"{speed.rate / 1e9:.0f} GFLOP/s. Prompts of {method.prompt} tokens, answers of "
        f"{method.output}, {rounds} rounds in turn; a figure is the median of all steps, beside it "
        "half of what the rounds differ by.",
        "",
    ]


def factor_lines(made: Calibration) -> list[str]:
    """The factors that were fitted."""
    factors = {k: v for k, v in made.factors.as_json().items() if isinstance(v, float)}
    told = ", ".join(f"{name} {value:.3g}" for name, value in factors.items())
    return ["", f"Factors: {told}; worst residual of the fit {100 * made.worst:.1f} %."]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--model-config", type=Path)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=6.0, help="for all of it")
    parser.add_argument("--steady-seconds", type=float, default=24.0, help="0 leaves it out")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--calibrate-on", type=int, nargs="+", default=[2, 4, 12, 16, 24])
    parser.add_argument("--predict", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--result", type=Path, help="write the tables there too")
    return parser.parse_args()


def main() -> None:
    """Parse, measure, calibrate, tell."""
    options = arguments()
    root = options.workspace or options.deployment.parent / ".toolkit"
    deployment = load(options.deployment).resolved()
    model = built(root, deployment.name)
    config = options.model_config
    arch = target_architecture(deployment, Workspace(root), model_config=config, offline=True)
    plan = make_plan(deployment, arch)
    method = Method(
        Tokens(model / "tokenizer"),
        options.prompt_tokens,
        options.output_tokens,
        tuple(options.calibrate_on),
        tuple(options.predict),
        options.steady_seconds,
    )
    before = measure_host()
    found = asyncio.run(run_all(model, method, options.rounds, options.minutes))
    after = measure_host()
    speed = HostSpeed(max(before.bandwidth, after.bandwidth), max(before.rate, after.rate))
    device = host_device(speed.bandwidth, speed.rate)
    replica = replica_of(plan, arch, {}, device=device)
    assert replica is not None
    made = fitted(replica, found, method)
    calibrated = replace(replica, factors=made.factors)
    lines = [
        *head(speed, found, method, str(options.deployment)),
        *decode_table(calibrated, found, method),
        *factor_lines(made),
        *steady_table(calibrated, found, method),
        *memory_lines(plan.memory, found),
    ]
    print("\n".join(lines))
    if options.result:
        options.result.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
