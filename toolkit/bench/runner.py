"""Measure a target: loads interleaved, repeats, interruption."""

from __future__ import annotations

import asyncio
import itertools
import math
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from toolkit import __version__
from toolkit.bench.drivers import Phase, drive
from toolkit.bench.load import Load, OpenLoop, Stop
from toolkit.bench.machine import this_machine
from toolkit.bench.metrics import Objectives, Window
from toolkit.bench.records import RequestRecord, Sampling, clock
from toolkit.bench.report import BenchReport, Point, TargetFacts
from toolkit.bench.saturation import Watch
from toolkit.bench.summary import Measurement, summarize_point
from toolkit.bench.target import Target, TargetInfo
from toolkit.bench.workload import Material, Session, Workload
from toolkit.errors import ServerError
from toolkit.progress import Progress, Silent

_AHEAD_LIMIT = 2000


@dataclass(frozen=True)
class Options:
    """How to measure.

    ``seed`` decides every prompt and arrival time. Each load and repeat draws prompts of its
    own from it, so that no run finds another's prompts in the server's KV cache.
    """

    stop: Stop = field(default_factory=Stop)
    repeats: int = 1
    seed: int = 0
    objectives: Objectives = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    material: Material = field(default_factory=Material)
    title: str = "benchmark"


def run(
    target: Target,
    workload: Workload,
    load: Load | Sequence[Load],
    options: Options = Options(),
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
    work = _Run(target, workload, loads, options, progress or Silent())
    info = asyncio.run(work.measure_all())
    measured = [(one, runs) for one, runs in zip(loads, work.runs, strict=True) if runs]
    points = tuple(summarize_point(one, runs) for one, runs in measured)
    if work.interrupted and not points:
        raise KeyboardInterrupt
    if not points:
        raise ServerError("nothing was measured", where=info.url or None)
    counted_by = measured[0][1][0].counted_by
    report = _report(info, workload, options, points, counted_by, partial=work.interrupted)
    missing = [one.label for one, runs in zip(loads, work.runs, strict=True) if not runs]
    if not missing:
        return report
    note = f"nothing was measured under {', '.join(missing)}"
    return report.model_copy(update={"notes": (*report.notes, note)})


async def measure(
    target: Target,
    workload: Workload,
    load: Load,
    options: Options,
    *,
    label: str = "",
    progress: Progress | None = None,
) -> Measurement | None:
    """Run one load once on an opened target.

    When cancelled it stops the load and returns what has ended so far, marked partial; None
    if that is nothing.
    """
    salt = f"{options.seed}:{label}"
    material = replace(options.material, salt=salt)
    phase = Phase(target, _prepared(workload, material, load, options.stop), options.sampling)
    offsets = load.offsets(material.dice("arrivals")) if isinstance(load, OpenLoop) else iter(())
    bar = progress or Silent()
    stop = options.stop
    total, unit = (
        (stop.requests, "requests") if stop.requests else (stop.warmup + stop.duration, "s")
    )
    bar.start(f"{load.label}{f' ({label})' if label else ''}", total, unit)
    partial = False
    async with Watch() as watch:
        try:
            if stop.requests:
                await _count(phase, load, offsets, stop, bar)
            else:
                await _timed(phase, load, offsets, stop, bar)
        except asyncio.CancelledError:
            partial = True
    window = _window(phase, options, partial)
    if window is None:
        bar.finish("nothing measured")
        return None
    counted_by = _count_tokens(window.present, options)
    bar.finish(f"{len(window.counted)} requests")
    return Measurement(salt, window, watch.health(window.counted), counted_by, partial)


class _Run:
    """The state of a run that an interruption may end at any time."""

    def __init__(
        self,
        target: Target,
        workload: Workload,
        loads: Sequence[Load],
        options: Options,
        progress: Progress,
    ) -> None:
        self._target, self._workload, self._loads = target, workload, loads
        self._options, self._progress = options, progress
        self.runs: list[list[Measurement]] = [[] for _ in loads]
        self.interrupted = False

    async def measure_all(self) -> TargetInfo:
        info = await self._target.open()
        try:
            for repeat in range(self._options.repeats):
                for index, load in enumerate(self._loads):
                    if not self.interrupted:
                        await self._measure_one(index, load, repeat)
        finally:
            await self._target.close()
        return info

    async def _measure_one(self, index: int, load: Load, repeat: int) -> None:
        label = f"{index + 1}.{repeat + 1}"
        task = asyncio.create_task(
            measure(
                self._target,
                self._workload,
                load,
                self._options,
                label=label,
                progress=self._progress,
            )
        )
        with _Interruptible(self, task):
            found = await task
        if found:
            self.runs[index].append(found)

    def interrupt(self, task: asyncio.Task[Measurement | None]) -> None:
        """Ctrl-C: end the running measurement, keep what it has."""
        self.interrupted = True
        self._progress.note("interrupted: writing what was measured")
        task.cancel()


class _Interruptible:
    """While it is entered, SIGINT ends the measurement instead of the program."""

    def __init__(self, run: _Run, task: asyncio.Task[Measurement | None]) -> None:
        self._run, self._task = run, task
        self._installed = False

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGINT, self._run.interrupt, self._task)
            self._installed = True

    def __exit__(self, *_: object) -> None:
        if self._installed:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


async def _count(
    phase: Phase, load: Load, offsets: Iterator[float], stop: Stop, progress: Progress
) -> None:
    """Warm-up requests to their end, then those that count."""
    if stop.warmup_requests:
        phase.limit, phase.opens = stop.warmup_requests, math.inf
        await drive(phase, load, iter([0.0] * stop.warmup_requests))
        phase.first_number += phase.started
        phase.records.clear()
    phase.start = phase.opens = clock()
    phase.started, phase.limit = 0, stop.requests
    phase.on_record = lambda record: progress.advance(1)
    await drive(phase, load, offsets)


async def _timed(
    phase: Phase, load: Load, offsets: Iterator[float], stop: Stop, progress: Progress
) -> None:
    phase.start = clock()
    phase.opens = phase.start + stop.warmup
    phase.end = phase.opens + stop.duration
    phase.least = load.least
    ticking = asyncio.create_task(_tick(phase, progress))
    try:
        await drive(phase, load, offsets)
    finally:
        ticking.cancel()


async def _tick(phase: Phase, progress: Progress) -> None:
    last = phase.start
    while last < phase.end:
        await asyncio.sleep(min(0.5, max(0.0, phase.end - clock())))
        now = min(clock(), phase.end)
        progress.advance(now - last)
        last = now


def _window(phase: Phase, options: Options, partial: bool) -> Window | None:
    """The measured stretch; one that was cut short ends with the last answer before the cut."""
    records, stop = phase.records, options.stop
    if not records:
        return None
    last = max(record.ended for record in records)
    start, end = phase.opens, last
    if not stop.requests:
        end = max(phase.end, *(record.request.intended for record in records))
        end = min(end, last) if partial else end
    counted = [record for record in records if start <= record.request.intended <= end]
    return Window(start, end, counted, list(records), options.objectives) if counted else None


def _count_tokens(records: Sequence[RequestRecord], options: Options) -> str:
    """Count with the tokenizer where the server does not tell; says who counted."""
    if any(record.usage.output_tokens is not None for record in records):
        return "server"
    vocabulary = options.material.vocabulary
    if vocabulary.unit != "tokens":
        return "responses"
    for record in records:
        record.counted_tokens = vocabulary.count(record.text, special=False)
    return "tokenizer"


def _prepared(workload: Workload, material: Material, load: Load, stop: Stop) -> Iterator[Session]:
    """Sessions of which the first are made now: making them costs the time of the event loop,
    which it must not lack while it measures."""
    sessions = iter(workload.sessions(material))
    seconds = stop.warmup + stop.duration
    if stop.requests:
        ahead = float(stop.requests + stop.warmup_requests)
    elif isinstance(load, OpenLoop):
        ahead = load.rate * seconds * 1.1 + 16
    else:
        ahead = load.concurrency * max(4.0, seconds)
    made = list(itertools.islice(sessions, min(_AHEAD_LIMIT, math.ceil(ahead))))
    return itertools.chain(made, sessions)


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
        notes=tuple(_notes(points, counted_by)),
    )


def _notes(points: Sequence[Point], counted_by: str) -> Iterator[str]:
    """What a reader has to know before believing the figures."""
    for point in points:
        reasons = {reason for one in point.repeats for reason in one.client.reasons}
        if reasons:
            yield (
                f"{point.label}: the client was saturated, so these figures are not the "
                f"server's alone: {'; '.join(sorted(reasons))}"
            )
        for error in point.errors:
            yield f"{point.label}: {error.count} x {error.kind}: {error.example}"
    if counted_by == "responses":
        yield (
            "the server does not tell its token counts and no tokenizer was given: each "
            "response counts as one token"
        )
