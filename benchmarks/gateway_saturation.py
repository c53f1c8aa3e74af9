"""Scheduling at saturation: latency-aware against first come first served, and as simulated.

    python benchmarks/gateway_saturation.py examples/smollm2.yaml

Needs the file deployed. Short interactive and long batch requests arrive at random, together at
1.5 times what the engine can do; the same arrivals, with other words, go through a gateway of
either policy, one after the other. The simulator is fitted to a separate run below saturation
and one at it, and then predicts both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gateway_process import gateway

from toolkit.bench.endpoint import find_deployed
from toolkit.bench.openai_http import OpenAiTarget
from toolkit.bench.records import Request, RequestRecord, clock
from toolkit.bench.vocabulary import Tokens
from toolkit.gateway.simulation import (
    ClassLoad,
    EngineModel,
    Lengths,
    Planned,
    RequestSample,
    fit_requests,
    percentile,
    poisson,
    simulate,
)
from toolkit.spec.gateway import RequestClass, Scheduling
from toolkit.spec.loading import load

INTERACTIVE, BATCH = "interactive", "batch"
MAX_WAIT = 60.0
CLASSES = {
    INTERACTIVE: RequestClass(weight=8, ttft_ms=2000),
    BATCH: RequestClass(weight=1, max_wait=MAX_WAIT),
}


@dataclass(frozen=True)
class Figures:
    """What came of one run: seconds, tokens of prompts and answers a second, counts."""

    interactive_ttft_p50: float
    interactive_ttft_p95: float
    batch_ttft_p95: float
    tokens_per_s: float
    completed: int
    refused: int
    longest_batch_wait: float


def trace(rate: float, seconds: float, seed: int) -> list[Planned]:
    """Three of ten requests are interactive; answers are as long as they are allowed."""
    kinds = (
        ClassLoad(INTERACTIVE, 0.3 * rate, Lengths(48, 0.4, 200), Lengths(24, 0.4, 64), 64),
        ClassLoad(BATCH, 0.7 * rate, Lengths(192, 0.4, 700), Lengths(80, 0.4, 160), 160),
    )
    planned = poisson(kinds, seconds, seed)
    return [replace(one, max_tokens=one.output_tokens) for one in planned]


async def play(
    planned: Sequence[Planned], port: int, model: str, words: Tokens, salt: str
) -> list[tuple[Planned, RequestRecord]]:
    """Send every request at its time, whatever becomes of the others."""
    target = OpenAiTarget("127.0.0.1", port, model, timeout=600)
    await target.open()
    dice = random.Random(salt)
    prompts = [words.make(one.prompt_tokens, dice) for one in planned]
    began = clock()

    async def send(number: int, one: Planned) -> RequestRecord:
        await asyncio.sleep(began + one.at - clock())
        length = one.output_tokens
        request = Request(
            number, prompts[number], length, began + one.at, length, request_class=one.request_class
        )
        return await target.generate(request)

    records = await asyncio.gather(*(send(*each) for each in enumerate(planned)))
    await target.close()
    return list(zip(planned, records, strict=True))


def measured(seen: Sequence[tuple[Planned, RequestRecord]], seconds: float) -> Figures:
    """Figures over the time in which requests arrived, its first quarter left out."""
    start = min(record.request.intended - one.at for one, record in seen)
    begin, end = start + seconds / 4, start + seconds
    counted = [(one, r) for one, r in seen if r.request.intended >= begin]

    def ttft(name: str) -> list[float]:
        return [
            r.responses[0] - r.request.intended
            for one, r in counted
            if one.request_class == name and r.ok and r.responses
        ]

    tokens = sum(_within(one, r, begin, end) for one, r in seen if r.ok and r.responses)
    refused = sum(1 for _, r in seen if r.failure and r.failure.kind in ("overload", "timeout"))
    assert refused + sum(r.ok for _, r in seen) == len(seen), "some failed otherwise"
    return Figures(
        percentile(ttft(INTERACTIVE), 0.5),
        percentile(ttft(INTERACTIVE), 0.95),
        percentile(ttft(BATCH), 0.95),
        tokens / (end - begin),
        sum(r.ok for _, r in seen),
        refused,
        max(ttft(BATCH), default=0.0),
    )


def _within(one: Planned, record: RequestRecord, begin: float, end: float) -> float:
    """Prompt tokens count with the first response, each response with its share of the answer."""
    first = record.responses[0]
    share = record.output_tokens / len(record.responses)
    read = one.prompt_tokens if begin <= first < end else 0
    return read + share * sum(begin <= when < end for when in record.responses)


def simulated(
    planned: Sequence[Planned], scheduling: Scheduling, engine: EngineModel, seconds: float
) -> Figures:
    """The same figures, predicted."""
    run = simulate(planned, scheduling, {"engine": engine})
    begin = seconds / 4
    interactive, batch = run.of(INTERACTIVE, begin), run.of(BATCH, begin)
    done = [one for one in run.outcomes if one.ended == "done"]
    return Figures(
        percentile((one.ttft_s for one in interactive), 0.5),
        percentile((one.ttft_s for one in interactive), 0.95),
        percentile((one.ttft_s for one in batch), 0.95),
        run.tokens_per_s(begin, seconds),
        len(done),
        len(run.outcomes) - len(done),
        max((one.ttft_s or 0.0 for one in batch), default=0.0),
    )


def samples(seen: Sequence[tuple[Planned, RequestRecord]]) -> list[RequestSample]:
    """What fits the simulator: requests as the engine saw them, so those that never waited."""
    return [
        RequestSample(r.sent, r.responses[0], r.ended, one.prompt_tokens, r.output_tokens)
        for one, r in seen
        if r.ok and r.responses
    ]


def main() -> None:
    """Fit, measure both policies in turn, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--overload", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    deployment = load(options.deployment).deployment
    deployed = find_deployed(
        deployment, options.workspace or options.deployment.parent / ".toolkit"
    )
    assert deployed.tokenizer, "the repository has no tokenizer"
    words, limits = Tokens(deployed.tokenizer), deployment.engine.limits
    engine = EngineModel(
        slots=limits.max_batch_size,
        kv_tokens=limits.max_batch_size * limits.max_seq_len,
        max_num_tokens=limits.max_num_tokens or 1024,
    )
    classes = json.dumps({name: one.model_dump(exclude_none=True) for name, one in CLASSES.items()})
    ports: dict[str, int] = {}

    def run(
        policy: str, planned: Sequence[Planned], salt: str
    ) -> list[tuple[Planned, RequestRecord]]:
        settings = [f"scheduling.classes={classes}", f"scheduling.policy={policy}"]
        with gateway(options.deployment, settings) as port:
            ports[policy] = port
            return asyncio.run(play(planned, port, deployment.name, words, salt))

    engine, rate = fit(run, engine)
    planned = trace(options.overload * rate, options.seconds, options.seed)
    print(f"engine {asdict(engine)}\ncapacity {rate:.2f} requests/s; {len(planned)} requests\n")
    print("| | " + " | ".join(name.replace("_", " ") for name in Figures.__annotations__) + " |")
    print("| --- |" + " ---: |" * len(Figures.__annotations__))
    for policy in ("fcfs", "latency_aware"):
        found = measured(run(policy, planned, f"{options.seed}-{policy}"), options.seconds)
        scheduling = Scheduling.model_validate({"policy": policy, "classes": CLASSES})
        told = simulated(planned, scheduling, engine, options.seconds)
        for label, figures in ((policy, found), (f"{policy}, simulated", told)):
            row = " | ".join(f"{value:.2f}" for value in asdict(figures).values())
            print(f"| {label} | {row} |", flush=True)


def fit(run: object, engine: EngineModel) -> tuple[EngineModel, float]:
    """The engine's step costs, and the requests a second that it can do."""
    assert callable(run)
    calm = run("fcfs", trace(0.8, 40, 11), "calm")
    # All at once: the engine is full and nothing else decides how long it takes.
    burst = [replace(one, at=0.0) for one in trace(2.0, 40, 12)][: engine.slots]
    full = run("fcfs", burst, "full")
    queue = [replace(one, at=0.0) for one in trace(2.0, 120, 13)][: 4 * engine.slots]
    backlog = run("fcfs", queue, "backlog")
    fitted = fit_requests(engine, [*samples(calm), *_after(samples(full), 1e4)])
    took = max(r.ended for _, r in backlog) - min(r.sent for _, r in backlog)
    return fitted, len(backlog) / took


def _after(found: list[RequestSample], seconds: float) -> list[RequestSample]:
    """The same later, so that two runs do not seem to be one."""
    return [
        replace(
            one,
            sent_at=one.sent_at + seconds,
            first_token_at=one.first_token_at + seconds,
            ended_at=one.ended_at + seconds,
        )
        for one in found
    ]


if __name__ == "__main__":
    main()
