"""Standard errors from within one run, against how much runs really differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from simulated import Server, report

from toolkit.bench.metrics import Window
from toolkit.bench.precision import LEAST_BLOCKS, MOST_BLOCKS, precision
from toolkit.bench.records import Request, RequestRecord, Usage
from toolkit.bench.report import Repeat

STEADY = Server(run=0.0, repeat=0.0, state=0.08, memory_s=0.1)


@pytest.fixture(scope="module")
def repeats() -> Sequence[Repeat]:
    return report(STEADY, 5, repeats=40, seconds=4.0).points[0].repeats


@pytest.mark.parametrize(
    "key", ["ttft.p50", "ttft.mean", "itl.p50", "e2e.p95", "output_throughput"]
)
def test_errors_are_about_as_large_as_runs_differ(key: str, repeats: Sequence[Repeat]) -> None:
    differ = float(np.std(np.log([one.figures[key] for one in repeats]), ddof=1))
    told = float(np.sqrt(np.mean([one.standard_errors[key] ** 2 for one in repeats])))
    assert 0.6 * differ < told < 1.7 * differ


def window(length: float, durations: list[float]) -> Window:
    records = []
    for number, duration in enumerate(durations):
        start = number * length / len(durations)
        record = RequestRecord(Request(number, "p", 4, start), sent=start)
        record.responses = [start + duration * part for part in (0.25, 0.5, 0.75, 1)]
        record.complete(start + duration, Usage(output_tokens=4))
        records.append(record)
    return Window(0.0, length, records, records, {})


def test_stretches_are_no_shorter_than_requests() -> None:
    assert precision(window(10.0, [1.6] * 40)).blocks == 6
    assert precision(window(10.0, [0.01] * 40)).blocks == MOST_BLOCKS


def test_nothing_is_claimed_from_too_little() -> None:
    assert precision(window(10.0, [0.1] * 9)).errors == {}
    long = precision(window(10.0, [10.0 / (LEAST_BLOCKS - 0.5)] * 40))
    assert (long.errors, long.blocks) == ({}, 0)


def test_equal_requests_leave_no_doubt_about_latency() -> None:
    found = precision(window(10.0, [0.5] * 40)).errors
    assert found["e2e.p95"] == pytest.approx(0, abs=1e-6)
    assert found["error_share"] == 0
    assert "good_share" not in found
