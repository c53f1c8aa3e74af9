"""One load from several processes.

One process handles about 25,000 streamed responses a second at most, and bends the latencies
well before that. Each worker runs its part of a :class:`~toolkit.bench.measuring.Job`: every
n-th session with the arrival time it has in the one sequence of all, or its share of the users.
The records come back at the end and are summed up as if one process had made them.

Times of different processes can be compared because the records' clock is the machine's
``CLOCK_MONOTONIC`` (clock_gettime(2): since boot, the same for all processes); each worker's
is checked against this process's when it starts.

Workers have a session of their own (setsid(2)), so that Ctrl-C reaches this process alone,
which then stops them and takes what they have. A worker whose parent is gone ends.
"""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from toolkit.bench.load import ClosedLoop, Load, OpenLoop, TraceLoop
from toolkit.bench.measuring import Harvest, Job, announce, conclude, tick
from toolkit.bench.records import clock
from toolkit.bench.scenario import Scenario
from toolkit.bench.summary import Measurement
from toolkit.bench.sweep_search import RateSearch
from toolkit.bench.target import Target
from toolkit.bench.worker_messages import packed, read
from toolkit.bench.workload import TraceFile
from toolkit.errors import EnvironmentError_, UnsupportedError
from toolkit.progress import Progress

USERS_PER_PROCESS = 64
TOKENS_PER_PROCESS = 5_000.0
_SEARCHING = 8
_LEAD = 0.02
_STOPPING = 15.0
_CLOCK_SLACK = 0.001
_KEPT_BYTES, _TOLD_LINES = 8192, 20
# Modules come from where this process has them, not from a working directory put in front.
_PROGRAM = """\
import sys
sys.path = [path for path in sys.path if path]
from toolkit.bench.worker_process import main
main()
"""


def processes_of(scenario: Scenario) -> int:
    """How many processes a scenario asks for; with ``auto``, how many its loads need.

    Raises:
        SpecError: the workload is a trace that cannot be read.
    """
    if scenario.processes != "auto":
        return scenario.processes
    load, workload = scenario.load, scenario.workload
    tokens = workload.mean_output()
    if isinstance(load, RateSearch):
        # How far it goes is not known before; idle processes cost little, but some.
        return min(_SEARCHING, processes_for((load.load(load.limit),), tokens))
    pace = workload.replay().rate if isinstance(workload, TraceFile) else 0.0
    return processes_for(load.loads, tokens, pace)


def processes_for(loads: Sequence[Load], output_tokens: float, pace: float = 0.0) -> int:
    """How many processes the largest of ``loads`` needs, at most half of the cores.

    A process is given 64 users, or 5,000 tokens a second of an open loop, which is a third or
    less of a core (benchmarks/results/client-cost.md); the other half of the cores is left to a
    server on this machine. ``pace`` is a trace's own rate.
    """
    most = max(1, len(os.sched_getaffinity(0)) // 2)
    wanted = [
        one.concurrency / USERS_PER_PROCESS
        if isinstance(one, ClosedLoop)
        else _rate(one, pace) * output_tokens / TOKENS_PER_PROCESS
        for one in loads
    ]
    return max(1, min(most, math.ceil(max(wanted, default=1.0))))


def _rate(load: OpenLoop | TraceLoop, pace: float) -> float:
    return load.speedup * pace if load.rate is None else load.rate


class Fleet:
    """Workers that measure one target.

    Args:
        target: What each opens for itself; pickled before it is opened.
        count: Workers.

    Raises:
        UnsupportedError: the target cannot be sent to another process.
    """

    def __init__(self, target: Target, count: int) -> None:
        try:
            self._target = pickle.dumps(target)
        except Exception as error:  # whatever its parts raise
            raise UnsupportedError(
                f"this target cannot be measured from {count} processes: {error}",
                hint="measure it from one",
            ) from error
        self._workers = [_Worker(index, count) for index in range(count)]

    async def open(self) -> None:
        """Start the workers; each connects.

        Raises:
            EnvironmentError_: one cannot be started, or its clock is another.
            ToolkitError: what the target raises when it is opened.
        """
        try:
            await asyncio.gather(*(worker.start() for worker in self._workers))
            for worker in self._workers:
                await worker.check_clock()
                worker.send("open", self._target)
            for worker in self._workers:
                await worker.expect("opened")
        except BaseException:
            await self.close()
            raise

    async def measure(self, job: Job, progress: Progress) -> Measurement | None:
        """Run ``job`` once; when cancelled, what has ended so far makes it, marked partial.

        Raises:
            EnvironmentError_: a worker died.
        """
        announce(job, progress)
        users = job.load.concurrency if isinstance(job.load, ClosedLoop) else len(self._workers)
        workers = self._workers[:users]
        try:
            harvests = await self._run(job, workers, progress)
        except asyncio.CancelledError:
            harvests = await self._stop(workers)
        return conclude(job, harvests, progress, missing=len(harvests) < len(workers))

    async def close(self) -> None:
        """End all workers."""
        await asyncio.gather(*(worker.end() for worker in self._workers))

    async def _run(self, job: Job, workers: Sequence[_Worker], progress: Progress) -> list[Harvest]:
        for index, worker in enumerate(workers):
            worker.give(replace(job, part=index, parts=len(workers)))
        stop = job.options.stop
        barriers = 2 if stop.requests and stop.warmup_requests else 1
        for _ in range(barriers):
            await _all(worker.expect("ready") for worker in workers)
            start = clock() + _LEAD
            for worker in workers:
                worker.send("begin", start)
        ticking = None if stop.requests else asyncio.create_task(tick(start, stop, progress))
        try:
            return await _all(worker.harvest(progress) for worker in workers)
        finally:
            if ticking:
                ticking.cancel()

    async def _stop(self, workers: Sequence[_Worker]) -> list[Harvest]:
        """What they have; one that does not answer has nothing."""
        for worker in workers:
            worker.send("stop")
        works = (asyncio.wait_for(worker.harvest(None), _STOPPING) for worker in workers)
        found = await asyncio.gather(*works, return_exceptions=True)
        return [one for one in found if isinstance(one, Harvest)]


class _Worker:
    """One of the processes, as its parent sees it."""

    def __init__(self, index: int, count: int) -> None:
        self._name = f"load process {index + 1} of {count}"
        self.done: Harvest | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._said = b""
        self._answers: asyncio.Queue[tuple[str, Any] | None] = asyncio.Queue()
        self._listening: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin the process."""
        paths = [path or os.getcwd() for path in sys.path]  # noqa: PTH109 - as python means it
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                _PROGRAM,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        except OSError as error:
            raise EnvironmentError_(
                f"{self._name} cannot be started: {error.strerror}", hint="--processes 1"
            ) from error
        works = (self._read_answers(), self._read_errors())
        self._listening = [asyncio.create_task(work) for work in works]

    async def check_clock(self) -> None:
        """Make sure that its times can be compared with those of this process."""
        before = clock()
        self.send("clock")
        its = await self.expect("clock")
        after = clock()
        if not before - _CLOCK_SLACK <= its <= after + _CLOCK_SLACK:
            raise EnvironmentError_(
                f"the clock of {self._name} differs by {its - after:+.3f} s",
                hint="measure from one process: --processes 1",
            )

    def send(self, *message: Any) -> None:
        """Tell it something; that it is gone is noticed by who waits for its answer."""
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(packed(message))

    async def expect(self, wanted: str) -> Any:
        """The next message, which has to be of that kind.

        Raises:
            EnvironmentError_: the worker died.
            Exception: what the worker raised.
        """
        kind, content = await self._next()
        assert kind == wanted, f"{self._name} says {kind} instead of {wanted}"
        return content

    def give(self, job: Job) -> None:
        """Have it run its part."""
        self.done = None
        self.send("job", job)

    async def harvest(self, progress: Progress | None) -> Harvest:
        """What it has when its part is done; steps on the way there advance ``progress``.

        It is kept: who stops all asks again those that had already told.
        """
        while self.done is None:
            kind, content = await self._next()
            if kind == "done":
                self.done = content
            elif progress and kind == "ended":
                progress.advance(content)
        return self.done

    async def end(self) -> None:
        """Let it go; it ends when its input does."""
        process = self._process
        if process is None:
            return
        assert process.stdin
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOPPING)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
        await asyncio.wait(self._listening)

    async def _next(self) -> tuple[str, Any]:
        answer = await self._answers.get()
        if answer is None:
            raise await self._lost()
        if answer[0] == "failed":
            raise answer[1]
        return answer

    async def _lost(self) -> EnvironmentError_:
        assert self._process
        code = await self._process.wait()
        await asyncio.wait(self._listening)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return EnvironmentError_(
            f"{self._name} died ({how}), so that its part of the load was missing",
            hint="out of memory? Try fewer users or a shorter duration",
            details=self._said.decode(errors="replace").splitlines()[-_TOLD_LINES:],
        )

    async def _read_answers(self) -> None:
        """In a task of its own: who waits for an answer may be cancelled in the middle of it."""
        assert self._process
        assert self._process.stdout
        try:
            while True:
                self._answers.put_nowait(await read(self._process.stdout))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._answers.put_nowait(None)

    async def _read_errors(self) -> None:
        assert self._process
        assert self._process.stderr
        # Not by lines: one may be longer than the reader takes.
        while said := await self._process.stderr.read(_KEPT_BYTES):
            self._said = (self._said + said)[-_KEPT_BYTES:]


async def _all(works: Iterator[Any]) -> list[Any]:
    """All results; when one fails the others are not waited for."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
