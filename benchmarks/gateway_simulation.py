"""What the gateway's scheduling is worth, simulated: no server, no GPU, the real scheduler.

    python benchmarks/gateway_simulation.py [--seconds 60] [--seed 1]

1. Eight GPUs at 1.5 times what they can do, 200 requests a second, interactive and batch mixed:
   latency_aware against order of arrival.
2. Conversations over two replicas whose KV cache holds about half of them: prefix affinity against
   load alone.
3. What one decision costs with 10,000 requests waiting (measured, the only figure here that
   depends on the machine).

To see your own deployment instead, fit an engine to its measurements and replace ``GPU``: the
docstring of toolkit.gateway.simulation says how.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toolkit.gateway.scheduling import ReplicaSpec, Scheduler, Ticket  # noqa: E402
from toolkit.gateway.simulation import (  # noqa: E402
    ClassLoad,
    EngineModel,
    Lengths,
    Run,
    Talk,
    conversations,
    poisson,
    simulate,
)
from toolkit.spec.gateway import Scheduling  # noqa: E402

GPU = EngineModel(
    step_s=0.008,
    prefill_s=37e-6,
    decode_s=1.25e-4,
    context_s=2e-8,
    slots=128,
    kv_tokens=400_000,
    max_num_tokens=4096,
)
"""Of the order of an 8B model in FP8 on one H100; not measured on one."""

LOAD = (
    ClassLoad("interactive", 80.0, Lengths(350, 0.6, 4000), Lengths(130, 0.6, 1024), 1024),
    ClassLoad("batch", 120.0, Lengths(900, 0.6, 8000), Lengths(220, 0.5, 1024), 1024),
)
TALK_GPU = replace(GPU, prefill_s=60e-6, slots=64, kv_tokens=150_000, max_num_tokens=2048)
TALK = Talk(
    "interactive",
    per_s=2.0,
    turns=8,
    message=Lengths(150, 0.5, 1000),
    output=Lengths(150, 0.5, 500),
    max_tokens=512,
    think_s=10.0,
)


def overloaded(policy: str, seconds: float, seed: int, batch_max_wait_s: float) -> Run:
    """Eight GPUs at 1.5 times their capacity."""
    section = {
        "policy": policy,
        "classes": {
            "interactive": {"weight": 8, "ttft_ms": 500, "max_queued": 100_000},
            "batch": {
                "weight": 1,
                "ttft_ms": 20_000,
                "max_wait": batch_max_wait_s,
                "max_queued": 100_000,
            },
        },
    }
    engines = {f"gpu-{k}": GPU for k in range(8)}
    return simulate(poisson(LOAD, seconds, seed), Scheduling.model_validate(section), engines)


def talking(*, affinity: bool, seconds: float, seed: int) -> Run:
    """Conversations over two replicas."""
    section = Scheduling(prefix_affinity=affinity)
    engines = {"gpu-0": TALK_GPU, "gpu-1": TALK_GPU}
    return simulate(conversations(TALK, seconds, seed), section, engines)


def decision_us(waiting: int, policy: str, decisions: int = 2000, seed: int = 1) -> float:
    """Processor microseconds of a dispatch that sends one request, eight replicas being full."""
    source = random.Random(seed)
    classes = {
        "interactive": {"weight": 8, "ttft_ms": 500, "max_queued": 10**6},
        "batch": {"weight": 1, "ttft_ms": 20_000, "max_queued": 10**6},
    }
    scheduler = Scheduler.of(Scheduling.model_validate({"policy": policy, "classes": classes}))
    for k in range(8):
        scheduler.add_replica(ReplicaSpec(f"gpu-{k}", "m", slots=128, kv_tokens=10**6), 0.0)

    def submit(number: int, now: float) -> None:
        talk, blocks = source.randrange(500), source.randrange(1, 32)
        prefix = tuple(hash((talk, k)) for k in range(blocks))
        kind = source.choice(("interactive", "batch"))
        ticket = Ticket(str(number), "m", kind, blocks * 32 + 5, 300, prefix, now)
        assert scheduler.submit(ticket, now) is None

    for number in range(waiting + 8 * 128):
        submit(number, number * 1e-4)
    now = 2.0
    running = [sent.ticket for sent in scheduler.dispatch(now)]
    spent = 0.0
    for turn in range(decisions):
        now += 0.005
        ended = running.pop(source.randrange(len(running)))
        scheduler.first_token(ended, now)
        scheduler.finish(ended, output_tokens=200, cached_tokens=100, now=now)
        begin = time.thread_time()
        sent = scheduler.dispatch(now)
        spent += time.thread_time() - begin
        running += [one.ticket for one in sent]
        submit(10**6 + turn, now)
    return spent / decisions * 1e6


def _row(label: str, run: Run, request_class: str, since: float) -> str:
    summary = next(s for s in run.summary(since) if s.request_class == request_class)
    figures = (
        *(f"{seconds:.2f}" for seconds in summary.ttft_s),
        f"{1000 * summary.itl_s[0]:.0f}",
        f"{summary.longest_queue_s:.1f}",
        ", ".join(f"{count} {how}" for how, count in sorted(summary.ended.items())),
    )
    return f"| {label} | {request_class} | {' | '.join(figures)} |"


_HEAD = (
    "| | class | TTFT s, median | 95% | 99% | token gap ms | longest queue s | requests |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"
)


def main() -> None:
    """Print the three tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    seconds, seed, since = asked.seconds, asked.seed, asked.seconds / 4
    print(f"## Overload: 8 GPUs, 200 requests/s for {seconds:.0f} s\n\n{_HEAD}")
    rates = {}
    for policy in ("fcfs", "latency_aware"):
        run = overloaded(policy, seconds, seed, batch_max_wait_s=seconds / 2)
        rates[policy] = run.tokens_per_s(since, seconds)
        for name in ("interactive", "batch"):
            print(_row(policy, run, name, since), flush=True)
    share = rates["latency_aware"] / rates["fcfs"]
    print(f"\nTokens/s: {rates['fcfs']:.0f} and {rates['latency_aware']:.0f} ({share:.1%}).")
    print(f"\n## Conversations over two replicas\n\n{_HEAD}")
    hits = []
    for affinity in (False, True):
        run = talking(affinity=affinity, seconds=3 * seconds, seed=seed)
        hits.append(run.hit_rate(since))
        print(_row(f"affinity {affinity}", run, "interactive", since), flush=True)
    print(f"\nKV hit rate: {hits[0]:.1%} and {hits[1]:.1%} ({hits[1] / hits[0]:.2f} times).")
    print("\n## One decision\n\n| waiting | fcfs, us | latency_aware, us |\n| ---: | ---: | ---: |")
    for waiting in (100, 10_000):
        costs = [decision_us(waiting, policy) for policy in ("fcfs", "latency_aware")]
        print(f"| {waiting} | {costs[0]:.0f} | {costs[1]:.0f} |")


if __name__ == "__main__":
    main()
