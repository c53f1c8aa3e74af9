"""Reports of slots that were never measured, with figures that can be worked out by hand."""

from __future__ import annotations

import functools

from toolkit.bench.load import ClosedLoop, Load
from toolkit.bench.metrics import Objective, Window
from toolkit.bench.records import Request, RequestRecord, Usage
from toolkit.bench.report import BenchReport, Machine, TargetFacts
from toolkit.bench.saturation import ClientHealth
from toolkit.bench.summary import Measurement, summarize_point
from toolkit.bench.workload import Conversation

CALM = ClientHealth(loop_lag_p99_ms=1, send_lag_p99_ms=1, cpu_share=0.1, saturated=False)
TOKENS = 8


def measurement(slow: float, later: float | None = None, cached: int = 0) -> Measurement:
    """Twelve requests, of two turns by turns; the first token comes after ``slow`` seconds, on
    second turns after ``later``, and each further one ``slow`` / 10 after the one before."""
    records = []
    for number in range(12):
        turn, start = number % 2, number * 1.0
        wait = slow if turn == 0 or later is None else later
        times = [start + wait + slow / 10 * k for k in range(TOKENS)]
        record = RequestRecord(
            Request(number, "p", TOKENS, start, session=number // 2, turn=turn),
            sent=start,
            responses=times,
        )
        record.complete(
            times[-1], Usage(output_tokens=TOKENS, prompt_tokens=100, cached_tokens=cached)
        )
        records.append(record)
    end = max(record.ended for record in records)
    return Measurement(
        "1:1.1", Window(0.0, end, records, records, {"": Objective(ttft_ms=1500)}), CALM
    )


def slot(
    *points: tuple[Load, Measurement], partial: bool = False, notes: tuple[str, ...] = ()
) -> BenchReport:
    """An ordinary report of one slot."""
    return BenchReport(
        toolkit_version="0",
        created="2026-01-01T00:00:00+00:00",
        title="t",
        partial=partial,
        target=TargetFacts(name="m", protocol="grpc", url="grpc://h:1"),
        machine=Machine(cpu="c", cores=2, memory_bytes=2**34, system="s", python="3"),
        workload=Conversation(type="conversation"),
        stop={"requests": 12},
        objectives={"": Objective(ttft_ms=1500)},
        seed=1,
        prompt_unit="tokens",
        tokens_counted_by="server",
        points=tuple(summarize_point(load, [run]) for load, run in points),
        notes=notes,
    )


USERS = ClosedLoop(concurrency=2)


@functools.cache
def simple(slow: float, later: float | None = None, cached: int = 0) -> BenchReport:
    """A slot of one load."""
    return slot((USERS, measurement(slow, later, cached)))
