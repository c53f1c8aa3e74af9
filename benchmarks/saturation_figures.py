"""The load of ``gateway_saturation.py``, and its figures: as measured, and as simulated."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolkit.bench.openai_http import OpenAiTarget
from toolkit.bench.records import Request, RequestRecord, clock
from toolkit.bench.vocabulary import Tokens
from toolkit.gateway.simulation import (
    ClassLoad,
    EngineModel,
    Lengths,
    Planned,
    RequestSample,
    percentile,
    poisson,
    simulate,
)
from toolkit.spec.gateway import RequestClass, Scheduling

INTERACTIVE, BATCH = "interactive", "batch"
MAX_WAIT = 60.0
CLASSES = {
    INTERACTIVE: RequestClass(weight=8, ttft_ms=2000),
    BATCH: RequestClass(weight=1, max_wait=MAX_WAIT),
}

Seen = tuple[Planned, RequestRecord]


@dataclass(frozen=True)
class Figures:
    """What came of one run: seconds, tokens of prompts and answers a second, counts."""

    interactive_ttft_p50: float
    interactive_ttft_p95: float
    batch_ttft_p95: float
    tokens_per_s: float
    completed: float
    refused: float
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
) -> list[Seen]:
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


def samples(seen: Sequence[Seen], later: float) -> list[RequestSample]:
    """For fitting: what was sent in order of arrival, so the gateway's queue is like the engine's.

    Everything is shifted by ``later`` seconds, so that two runs do not seem to be one.
    """
    return [
        RequestSample(
            r.sent + later,
            r.responses[0] + later,
            r.ended + later,
            one.prompt_tokens,
            r.output_tokens,
        )
        for one, r in seen
        if r.ok and r.responses
    ]


def measured(seen: Sequence[Seen], seconds: float) -> Figures:
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
