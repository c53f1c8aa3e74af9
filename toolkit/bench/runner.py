"""Measure a target: loads interleaved, repeats, interruption."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone

from toolkit import __version__
from toolkit.bench.client import Client
from toolkit.bench.load import Load, TraceLoop
from toolkit.bench.machine import this_machine
from toolkit.bench.measuring import Options, measure
from toolkit.bench.report import BenchReport, Point, TargetFacts
from toolkit.bench.summary import Measurement, summarize_point
from toolkit.bench.target import Target, TargetInfo
from toolkit.bench.workload import TraceFile, Workload
from toolkit.errors import ServerError
from toolkit.progress import Progress, Silent

__all__ = ["Options", "assemble", "measure", "run"]

_DEFAULTS = Options()


def run(
    target: Target,
    workload: Workload,
    load: Load | Sequence[Load],
    options: Options = _DEFAULTS,
    *,
    progress: Progress | None = None,
) -> BenchReport:
    """Measure ``target`` under one load or several.

    Several loads run interleaved (A B C, A B C for two repeats), so that a drift of the
    machine falls on all of them alike. Ctrl-C ends the measurement early: the report then
    holds what was measured until then and is marked partial.

    Raises:
        ServerError: the target cannot be reached, or no request came to its end.
        KeyboardInterrupt: Ctrl-C before anything was measured.
        SpecError: the workload cannot be made (a file that is missing, for example).
    """
    loads = list(load) if isinstance(load, Sequence) else [load]
    runs: list[list[Measurement]] = [[] for _ in loads]
    client = Client(target, workload, options, progress or Silent())
    asyncio.run(_interleave(client, loads, options.repeats, runs))
    measured = [(one, found) for one, found in zip(loads, runs, strict=True) if found]
    report = assemble(client, workload, options, measured)
    missing = [one.label for one, found in zip(loads, runs, strict=True) if not found]
    if not missing:
        return report
    note = f"nothing was measured under {', '.join(missing)}"
    return report.model_copy(update={"notes": (*report.notes, note)})


async def _interleave(
    client: Client, loads: Sequence[Load], repeats: int, runs: list[list[Measurement]]
) -> None:
    async with client:
        for repeat in range(repeats):
            for index, load in enumerate(loads):
                found = None
                if not client.ended:
                    found = await client.measure(load, f"{index + 1}.{repeat + 1}")
                if found:
                    runs[index].append(found)


def assemble(
    client: Client,
    workload: Workload,
    options: Options,
    measured: Sequence[tuple[Load, Sequence[Measurement]]],
) -> BenchReport:
    """The report of what ``client`` measured: each load with its runs.

    Raises:
        KeyboardInterrupt: nothing, because of Ctrl-C.
        EnvironmentError_: nothing, because a load process died.
        ServerError: nothing.
    """
    points = tuple(summarize_point(one, runs) for one, runs in measured)
    if not points:
        if client.interrupted:
            raise KeyboardInterrupt
        raise client.broken or ServerError(
            "nothing was measured",
            where=client.info.url or None,
            hint="no request began after the warm-up: shorten stop.warmup, or give more prompts",
        )
    counted_by = measured[0][1][0].counted_by
    report = _report(client.info, workload, options, points, counted_by, partial=client.ended)
    if not client.broken:
        return report
    update = {"failure": client.broken.message, "notes": (*report.notes, client.broken.message)}
    return report.model_copy(update=update)


def _report(
    info: TargetInfo,
    workload: Workload,
    options: Options,
    points: tuple[Point, ...],
    counted_by: str,
    *,
    partial: bool,
) -> BenchReport:
    return BenchReport(
        toolkit_version=__version__,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        title=options.title,
        partial=partial,
        target=TargetFacts(
            name=info.name, protocol=info.protocol, url=info.url, server=info.server
        ),
        machine=this_machine(),
        workload=workload,
        stop=options.stop,
        objectives=dict(options.objectives),
        seed=options.seed,
        prompt_unit=options.material.vocabulary.unit,
        tokens_counted_by=counted_by,
        points=points,
        notes=tuple(_notes(workload, points, counted_by)),
    )


def _notes(workload: Workload, points: Sequence[Point], counted_by: str) -> Iterator[str]:
    """What a reader has to know before believing the figures."""
    if isinstance(workload, TraceFile):
        yield from _trace_notes(workload, points)
    for point in points:
        reasons = {reason for one in point.repeats for reason in one.client.reasons}
        if reasons:
            yield (
                f"{point.label}: the client was saturated, so these figures are not the "
                f"server's alone: {'; '.join(sorted(reasons))}{_remedy(point)}"
            )
        for error in point.errors:
            yield f"{point.label}: {error.count} x {error.kind}: {error.example}"
    if counted_by == "responses":
        yield (
            "the server does not tell its token counts and no tokenizer was given: each "
            "response counts as one token"
        )


def _trace_notes(workload: TraceFile, points: Sequence[Point]) -> Iterator[str]:
    replay = workload.replay()
    yield from replay.notes()
    for point in points:
        sent = max(len(one.spans) for one in point.repeats)
        if isinstance(point.load, TraceLoop) and sent < len(replay.arrivals):
            yield f"{point.label}: {sent} of the trace's {len(replay.arrivals)} requests were sent"


def _remedy(point: Point) -> str:
    """More processes help where there are cores for them."""
    processes = max(one.client.processes for one in point.repeats)
    more = len(os.sched_getaffinity(0)) > processes
    return f" (from {processes} process{'es' if processes > 1 else ''}: try more)" if more else ""
