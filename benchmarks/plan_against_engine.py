"""What the plan says of the CPU engine against what the engine does.

    python benchmarks/plan_against_engine.py examples/smollm2.yaml --rounds 3

Needs the file built (toolkit build); no server. The engine of the newest repository runs in this
process. All loads are measured in turn, round after round, so that drift meets all of them alike.
The factors are calibrated on some numbers of users and predict the throughput at the others; the
plan's memory is held against what the process takes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from engine_target import EngineTarget

from toolkit.bench.chat import PlainChat
from toolkit.bench.host_speed import measure_host
from toolkit.bench.lengths import Fixed
from toolkit.bench.load import ClosedLoop, Stop
from toolkit.bench.machine import this_machine
from toolkit.bench.runner import Options, measure
from toolkit.bench.summary import Measurement, summarize_point
from toolkit.bench.vocabulary import Tokens
from toolkit.bench.workload import Independent, Material
from toolkit.capacity.calibration import Calibration, calibrate
from toolkit.capacity.serving import Replica, with_users
from toolkit.capacity.traffic import Traffic
from toolkit.pipeline.architectures import target_architecture
from toolkit.pipeline.calibrating import observation
from toolkit.pipeline.planning import Plan, make_plan
from toolkit.pipeline.sizing import host_device, replica_of
from toolkit.spec.loading import load
from toolkit.workspace import Workspace

GIB = 2**30


@dataclass(frozen=True)
class Method:
    """How the engine is loaded: users without a pause, prompts and answers of one length."""

    words: Tokens
    prompt: int
    output: int
    stop: Stop

    @property
    def traffic(self) -> Traffic:
        """The same for the estimate."""
        return Traffic(self.prompt, self.output)


async def run_load(target: EngineTarget, method: Method, users: int, salt: str) -> Measurement:
    """One load, once."""
    workload = Independent(
        prompt_tokens=Fixed(tokens=method.prompt), output_tokens=Fixed(tokens=method.output)
    )
    options = Options(stop=method.stop, material=Material(method.words, PlainChat(), salt))
    found = await measure(target, workload, ClosedLoop(concurrency=users), options, label=salt)
    assert found is not None, "nothing was measured"
    failed = [record.failure for record in found.window.present if record.failure]
    assert not failed, failed[:3]
    return found


async def run_all(
    model: Path, method: Method, loads: list[int], rounds: int
) -> tuple[dict[int, list[Measurement]], int]:
    """All loads in turn; the measurements, and the bytes that the engine made the process grow."""
    before = resident()
    target = EngineTarget(model)
    await target.open()
    found: dict[int, list[Measurement]] = {users: [] for users in loads}
    await run_load(target, method, max(loads), "warm")
    for number in range(rounds):
        for users in loads if number % 2 == 0 else loads[::-1]:
            found[users].append(await run_load(target, method, users, f"{number}-{users}"))
            print(f"round {number + 1}, {users} users: done", file=sys.stderr, flush=True)
    grown = resident() - before
    await target.close()
    return found, grown


def built(root: Path, name: str) -> Path:
    """The engine's folder in the newest repository that was built for the deployment."""
    found = sorted(
        (root / "repository").glob(f"*/repository/{name}/1"), key=lambda each: each.stat().st_mtime
    )
    if not found:
        raise SystemExit(f"nothing is built in {root}: toolkit build first")
    return found[-1]


def resident() -> int:
    """Bytes of this process in memory."""
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


def fitted(
    replica: Replica, found: dict[int, list[Measurement]], users: list[int], title: str
) -> Calibration:
    """Factors from these numbers of users."""
    points = (summarize_point(ClosedLoop(concurrency=each), found[each]) for each in users)
    seen = [one for one in map(observation, points) if one is not None]
    return calibrate(replica, seen, source=title)


def print_throughput(
    replica: Replica, found: dict[int, list[Measurement]], method: Method, unseen: list[int]
) -> None:
    """Measured and predicted tokens a second, those that were not calibrated on marked."""
    print("| users | calibrated on | measured tok/s | predicted tok/s | error |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for users, runs in found.items():
        point = summarize_point(ClosedLoop(concurrency=users), runs)
        measured = point.totals["output_throughput"].value
        told = with_users(replica, method.traffic, users).output_tokens_per_s
        said = "no" if users in unseen else "yes"
        error = 100 * (told / measured - 1)
        print(f"| {users} | {said} | {measured:.1f} | {told:.1f} | {error:+.1f} % |")


def print_memory(plan: Plan, grown: int) -> None:
    """The plan's sum against the growth of the process."""
    memory: Any = plan.memory
    told = memory.used + memory.pool
    print(f"\nmemory: planned {told / GIB:.3f} GiB ({memory.pool / GIB:.3f} of them KV cache), ")
    print(f"measured {grown / GIB:.3f} GiB, error {100 * (told / grown - 1):+.1f} %")


def main() -> None:
    """Parse, measure, calibrate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--model-config", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=12.0)
    parser.add_argument("--warmup", type=float, default=3.0)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--calibrate-on", type=int, nargs="+", default=[2, 4, 16, 24])
    parser.add_argument("--predict", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    root = options.workspace or options.deployment.parent / ".toolkit"
    deployment = load(options.deployment).resolved()
    model = built(root, deployment.name)
    config = options.model_config
    arch = target_architecture(deployment, Workspace(root), model_config=config, offline=True)
    plan = make_plan(deployment, arch)
    speed = measure_host()
    replica = replica_of(plan, arch, {}, device=host_device(speed.bandwidth, speed.rate))
    assert replica is not None
    stop = Stop(duration=options.duration, warmup=options.warmup)
    sizes = options.prompt_tokens, options.output_tokens
    method = Method(Tokens(model / "tokenizer"), *sizes, stop)
    loads = sorted({*options.calibrate_on, *options.predict})
    found, grown = asyncio.run(run_all(model, method, loads, options.rounds))
    made = fitted(replica, found, sorted(options.calibrate_on), "this run")
    machine = this_machine()
    print(f"{machine.cpu}, {machine.cores} cores: {speed.bandwidth / 1e9:.1f} GB/s read, ", end="")
    print(f"{speed.rate / 1e9:.0f} GFLOP/s; {options.rounds} rounds of {options.duration:g} s, ")
    print(f"prompts of {sizes[0]} tokens, answers of {sizes[1]}\n")
    print_throughput(replace(replica, factors=made.factors), found, method, options.predict)
    print(f"\nworst residual of the calibration: {100 * made.worst:.1f} %")
    for name, value in made.factors.as_json().items():
        print(f"{name}: {value}")
    print_memory(plan, grown)


if __name__ == "__main__":
    main()
