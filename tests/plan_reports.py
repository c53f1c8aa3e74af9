"""Reports of toolkit bench as a calibration reads them, from estimates in place of measures."""

from __future__ import annotations

from typing import Any

from toolkit.bench.load import Stop
from toolkit.bench.machine import this_machine
from toolkit.bench.report import BenchReport, Distribution, Estimate, Point, TargetFacts
from toolkit.bench.workload import Independent


def report_of(loads: list[tuple[Any, Any]], **totals: float) -> BenchReport:
    """Of loads and what was estimated of each; ``totals`` are the same at all of them."""

    def spread(value: float) -> Distribution:
        return Distribution(unit="", count=9, stats={"mean": Estimate(value=value)}, curve=(value,))

    points = tuple(
        Point(
            label=how.label,
            load=how,
            distributions={
                "tpot": spread(made.tpot_s * 1000),
                "ttft": spread(made.ttft_s * 1000),
                "prompt_tokens": spread(500),
                "output_tokens": spread(100),
            },
            totals={
                "request_throughput": Estimate(value=made.rate),
                **{name: Estimate(value=value) for name, value in totals.items()},
            },
            errors=(),
            repeats=(),
        )
        for how, made in loads
    )
    return BenchReport(
        toolkit_version="0",
        created="2026-11-24T00:00:00Z",
        title="a run",
        partial=False,
        target=TargetFacts(name="chat", protocol="grpc"),
        machine=this_machine(),
        workload=Independent(),
        stop=Stop(duration=9.0),
        objectives={},
        seed=1,
        prompt_unit="tokens",
        tokens_counted_by="server",
        points=points,
    )
