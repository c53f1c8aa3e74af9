"""Run one load once: the warm-up, the measured stretch, what is kept of it."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from toolkit.bench.drivers import Phase, drive
from toolkit.bench.load import ClosedLoop, Load, Stop, TraceLoop
from toolkit.bench.metrics import Objectives, Window
from toolkit.bench.records import RequestRecord, Sampling, clock
from toolkit.bench.saturation import ClientHealth, Watch
from toolkit.bench.summary import Measurement
from toolkit.bench.target import Target
from toolkit.bench.workload import Material, Session, TraceFile, Workload
from toolkit.errors import SpecError
from toolkit.progress import Progress, Silent

_AHEAD_LIMIT = 2000


@dataclass(frozen=True)
class Options:
    """How to measure.

    ``seed`` decides every prompt and arrival time. Each load and repeat draws prompts of its
    own from it, so that no run finds another's prompts in the server's KV cache. The load comes
    from so many ``processes`` (:mod:`toolkit.bench.workers`).
    """

    stop: Stop = field(default_factory=Stop)
    repeats: int = 1
    seed: int = 0
    objectives: Objectives = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    material: Material = field(default_factory=Material)
    title: str = "benchmark"
    processes: int = 1


@dataclass(frozen=True)
class Job:
    """One load to run once, or the part of it that one of several processes runs.

    The parts together are the whole: each takes every n-th session, with the arrival time that
    the session has in the one sequence of all, and its share of users and of counted requests.
    """

    workload: Workload
    load: Load
    options: Options
    label: str = ""
    part: int = 0
    parts: int = 1

    @property
    def salt(self) -> str:
        """What makes its prompts its own."""
        return f"{self.options.seed}:{self.label}"

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.load.label}{f' ({self.label})' if self.label else ''}"

    @property
    def material(self) -> Material:
        """What its sessions are made with."""
        part = (self.part, self.parts)
        return replace(self.options.material, salt=self.salt, part=part)

    def share(self, total: int) -> int:
        """How many of ``total`` things this part takes."""
        return total // self.parts + (self.part < total % self.parts)

    @property
    def counted(self) -> int:
        """Requests that count, where a number is to be measured: what follows the warm-up."""
        stop = self.options.stop
        warm = stop.warmup_requests
        return self.share(warm + (stop.requests or 0)) - self.share(warm)

    def offsets(self) -> Iterator[float]:
        """When its sessions start, in seconds from the measured start; none for a closed loop.

        Sessions that warm up have no offset: they start at once, before.
        """
        if isinstance(self.load, ClosedLoop):
            return iter(())
        stop = self.options.stop
        warm = stop.warmup_requests if stop.requests else 0
        first = self.part + self.parts * self.share(warm) - warm
        return itertools.islice(self._all_offsets(warm), first, None, self.parts)

    def least(self) -> int:
        """How many requests a window of a given time has to see begin."""
        if isinstance(self.load, ClosedLoop):
            return self.share(self.load.least)
        first = (k for k, at in enumerate(self._all_offsets(0)) if at >= self.options.stop.warmup)
        return int(next(first, -1) % self.parts == self.part)

    def _all_offsets(self, warm: int) -> Iterator[float]:
        load = self.load
        if isinstance(load, ClosedLoop):
            return iter(())
        if isinstance(load, TraceLoop):
            return load.offsets([one.at for one in trace_of(self).replay().arrivals[warm:]])
        return load.offsets(self.material.dice("arrivals"))


def trace_of(job: Job) -> TraceFile:
    """The workload of a load of type ``trace``.

    Raises:
        SpecError: it is of another type, which has no arrival times.
    """
    if not isinstance(job.workload, TraceFile):
        raise SpecError(
            f"a load of type trace needs a workload of type trace, not {job.workload.type}",
            where="load.type",
        )
    return job.workload


class Conductor(Protocol):
    """Keeps the parts of a load together."""

    async def begin(self) -> float:
        """Wait until the other parts are as far as this one; returns the common start."""

    def ended(self, record: RequestRecord) -> None:
        """A counted request has come to its end."""


@dataclass(frozen=True)
class Harvest:
    """What came of a job: ``records`` of the requests that ended, the window's beginning and,
    for a stretch of time, its end."""

    records: list[RequestRecord]
    opens: float
    end: float
    exhausted: bool
    partial: bool
    health: ClientHealth


async def measure(
    target: Target,
    workload: Workload,
    load: Load,
    options: Options,
    *,
    label: str = "",
    progress: Progress | None = None,
) -> Measurement | None:
    """Run one load once on an opened target, from this process.

    When cancelled it stops the load and returns what has ended so far, marked partial; None
    if that is nothing.
    """
    job, bar = Job(workload, load, options, label), progress or Silent()
    announce(job, bar)
    alone = _Alone(job, bar)
    try:
        harvest = await run_job(target, job, alone)
    finally:
        alone.stop()
    return conclude(job, [harvest], bar)


def announce(job: Job, progress: Progress) -> None:
    """Tell what begins."""
    stop = job.options.stop
    if stop.requests:
        progress.start(job.title, stop.requests, "requests")
    else:
        progress.start(job.title, stop.warmup + stop.duration, "s")


def conclude(
    job: Job, parts: Sequence[Harvest], progress: Progress, *, missing: bool = False
) -> Measurement | None:
    """The measurement that the parts of a load make together, as if one process had run it.

    It is partial if a part is, or if there are parts ``missing``.
    """
    if not parts:
        progress.finish("nothing measured")
        return None
    records = sorted(
        (record for part in parts for record in part.records),
        key=lambda record: (record.ended, record.request.number),
    )
    whole = Harvest(
        records,
        opens=min(part.opens for part in parts),
        end=max(part.end for part in parts),
        exhausted=all(part.exhausted for part in parts),
        partial=missing or any(part.partial for part in parts),
        health=ClientHealth.together([part.health for part in parts]),
    )
    window = _window(whole, job.options)
    if window is None:
        progress.finish("nothing measured")
        return None
    counted_by = count_tokens(window.present, job.options.material)
    progress.finish(f"{len(window.counted)} requests")
    return Measurement(job.salt, window, whole.health, counted_by, whole.partial)


async def run_job(target: Target, job: Job, conductor: Conductor) -> Harvest:
    """Run a job; when cancelled, what has ended so far is kept, and the harvest partial."""
    options = job.options
    phase = Phase(target, _prepared(job), options.sampling)
    phase.first_number, phase.stride = job.part, job.parts
    partial = False
    async with Watch() as watch:
        try:
            if options.stop.requests:
                await _count(phase, job, conductor, watch)
            else:
                await _timed(phase, job, conductor, watch)
        except asyncio.CancelledError:
            partial = True
    health = watch.health([r for r in phase.records if r.request.intended >= phase.opens])
    return Harvest(phase.records, phase.opens, phase.end, phase.exhausted, partial, health)


async def _count(phase: Phase, job: Job, conductor: Conductor, watch: Watch) -> None:
    """Warm-up requests to their end, then those that count."""
    load, stop = _own(job), job.options.stop
    warm = job.share(stop.warmup_requests)
    if stop.warmup_requests:
        phase.limit, phase.opens = warm, math.inf
        await conductor.begin()
        await drive(phase, load, iter([0.0] * warm))
        phase.first_number += phase.started * phase.stride
        phase.records.clear()
    phase.start = phase.opens = await conductor.begin()
    watch.begin()
    phase.started, phase.exhausted = 0, False
    phase.limit = job.counted
    phase.on_record = conductor.ended
    await drive(phase, load, job.offsets())


async def _timed(phase: Phase, job: Job, conductor: Conductor, watch: Watch) -> None:
    stop = job.options.stop
    phase.opens = math.inf
    phase.start = await conductor.begin()
    watch.begin()
    phase.opens = phase.start + stop.warmup
    phase.end = phase.opens + stop.duration
    phase.least = job.least()
    loop = asyncio.get_running_loop()
    due = ((phase.opens, watch.begin), (phase.end, watch.end))
    calls = [loop.call_later(when - clock(), call) for when, call in due]
    try:
        await drive(phase, _own(job), job.offsets())
    finally:
        for call in calls:
            call.cancel()


def _own(job: Job) -> Load:
    """The job's part of the users."""
    load = job.load
    if not isinstance(load, ClosedLoop) or job.parts == 1:
        return load
    return load.model_copy(update={"concurrency": job.share(load.concurrency)})


class _Alone:
    """One process: nobody to wait for."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self._job, self._progress = job, progress
        self._ticking: asyncio.Task[None] | None = None

    async def begin(self) -> float:
        start, stop = clock(), self._job.options.stop
        if not stop.requests:
            self._ticking = asyncio.create_task(tick(start, stop, self._progress))
        return start

    def ended(self, record: RequestRecord) -> None:
        self._progress.advance(1)

    def stop(self) -> None:
        if self._ticking:
            self._ticking.cancel()


async def tick(start: float, stop: Stop, progress: Progress) -> None:
    """Advance ``progress`` by the seconds of a load that began at ``start``."""
    last, end = start, start + stop.warmup + stop.duration
    while last < end:
        await asyncio.sleep(min(0.5, max(0.0, end - clock())))
        now = min(clock(), end)
        progress.advance(max(0.0, now - last))
        last = now


def _window(harvest: Harvest, options: Options) -> Window | None:
    """The measured stretch; one that was cut short, or whose prompts ran out, ends with the
    last answer."""
    records, stop = harvest.records, options.stop
    if not records:
        return None
    last = max(record.ended for record in records)
    start, end = harvest.opens, last
    if not stop.requests:
        end = max(harvest.end, *(record.request.intended for record in records))
        end = min(end, last) if harvest.partial or harvest.exhausted else end
    counted = [record for record in records if start <= record.request.intended <= end]
    return Window(start, end, counted, list(records), options.objectives) if counted else None


def count_tokens(records: Sequence[RequestRecord], material: Material) -> str:
    """Count with the tokenizer where the server does not tell; says who counted."""
    if any(record.usage.output_tokens is not None for record in records):
        return "server"
    vocabulary = material.vocabulary
    if vocabulary.unit != "tokens":
        return "responses"
    for record in records:
        record.counted_tokens = vocabulary.count(record.text, special=False)
    return "tokenizer"


def _prepared(job: Job) -> Iterator[Session]:
    """Sessions of which the first are made now: making them costs the time of the event loop,
    which it must not lack while it measures."""
    sessions = iter(job.workload.sessions(job.material))
    made = list(itertools.islice(sessions, min(_AHEAD_LIMIT, _expected(job))))
    return itertools.chain(made, sessions)


def _expected(job: Job) -> int:
    """About how many sessions it will start."""
    stop = job.options.stop
    seconds = stop.warmup + stop.duration
    if stop.requests:
        return job.share(stop.requests + stop.warmup_requests)
    if isinstance(job.load, ClosedLoop):
        return math.ceil(job.share(job.load.concurrency) * max(4.0, seconds))
    due = itertools.takewhile(lambda at: at <= seconds, job.offsets())
    return 16 + sum(1 for _ in itertools.islice(due, _AHEAD_LIMIT))
