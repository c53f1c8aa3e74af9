"""Runs of an imagined server whose figures drift, cluster and have tails as real ones do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from toolkit.bench.load import ClosedLoop
from toolkit.bench.metrics import Objective, Window
from toolkit.bench.records import Request, RequestRecord, Usage
from toolkit.bench.report import BenchReport, Machine, TargetFacts
from toolkit.bench.saturation import ClientHealth
from toolkit.bench.summary import Measurement, summarize_point
from toolkit.bench.workload import Independent

CALM = ClientHealth(loop_lag_p99_ms=1, send_lag_p99_ms=1, cpu_share=0.1, saturated=False)
MACHINE = Machine(cpu="c", cores=2, memory_bytes=2**34, system="s", python="3")
TTFT_S, ITL_S, TOKENS = 0.060, 0.009, 12


@dataclass(frozen=True)
class Server:
    """How an imagined server varies; standard deviations of the logarithm of its times.

    ``slower`` multiplies every time. ``run`` and ``repeat`` shift a whole report and a whole
    repeat; ``state`` is shared by requests that are close in time (an AR(1) process with a
    memory of ``memory_s``); ``single`` is each request's own. ``fails`` of the requests fail.
    """

    slower: float = 1.0
    run: float = 0.01
    repeat: float = 0.02
    state: float = 0.05
    memory_s: float = 0.3
    single: float = 0.15
    fails: float = 0.0
    users: int = 4


def report(
    server: Server, seed: int, *, repeats: int = 5, seconds: float = 3.0, **changes: object
) -> BenchReport:
    """What ``toolkit bench`` would report of it."""
    dice = np.random.default_rng(seed)
    run = dice.normal(0, server.run)
    runs = [_repeat(server, run, seconds, dice) for _ in range(repeats)]
    made = BenchReport(
        toolkit_version="0",
        created="2026-01-01T00:00:00+00:00",
        title="m: simulated",
        partial=False,
        target=TargetFacts(name="m", protocol="grpc", url="grpc://h:1"),
        machine=MACHINE,
        workload=Independent(),
        stop={"duration": seconds},
        objectives={"": Objective(ttft_ms=120)},
        seed=seed,
        prompt_unit="tokens",
        tokens_counted_by="server",
        points=(summarize_point(ClosedLoop(concurrency=server.users), runs),),
    )
    return made.model_copy(update=changes)


def _repeat(server: Server, run: float, seconds: float, dice: np.random.Generator) -> Measurement:
    shift = math.log(server.slower) + run + dice.normal(0, server.repeat)
    pace = _state(server, seconds, dice)
    records = []
    for _ in range(server.users):
        now = -dice.uniform(0, TTFT_S)
        while now < seconds:
            record = _request(server, len(records), now, shift + pace(now), dice)
            records.append(record)
            now = record.ended
    counted = [one for one in records if one.request.intended >= 0]
    window = Window(0.0, seconds, counted, records, {"": Objective(ttft_ms=120)})
    return Measurement("0:1.1", window, CALM)


def _state(server: Server, seconds: float, dice: np.random.Generator) -> Callable[[float], float]:
    step = 0.05
    keep = math.exp(-step / server.memory_s)
    values = [dice.normal(0, server.state)]
    while len(values) * step < 2 * seconds + 5:
        fresh = dice.normal(0, server.state * math.sqrt(1 - keep**2))
        values.append(keep * values[-1] + fresh)
    return lambda now: values[max(0, int(now / step))]


def _request(
    server: Server, number: int, start: float, shift: float, dice: np.random.Generator
) -> RequestRecord:
    own = shift + dice.normal(0, server.single)
    first = start + TTFT_S * math.exp(own)
    gaps = ITL_S * np.exp(shift + dice.normal(0, server.single, TOKENS - 1))
    times = [first, *(first + np.cumsum(gaps))]
    record = RequestRecord(
        Request(number, "p", TOKENS, start), sent=start, responses=[float(time) for time in times]
    )
    if dice.random() < server.fails:
        record.fail("overload", "queue is full")
        record.ended = float(times[-1])
    else:
        record.complete(float(times[-1]), Usage(output_tokens=TOKENS, prompt_tokens=10))
    return record
