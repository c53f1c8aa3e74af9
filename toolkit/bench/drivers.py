"""Send sessions to a target under a load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from toolkit.bench.load import ClosedLoop, Load
from toolkit.bench.records import Request, RequestRecord, Sampling, clock
from toolkit.bench.target import Target
from toolkit.bench.workload import Session


@dataclass
class Phase:
    """One uninterrupted stretch of load, and all that came of it.

    No request that is intended for ``end`` or later is started, unless fewer than ``least``
    have been since ``opens``; and never more than ``limit``. Records are those of requests that
    have ended. Requests are numbered from ``first_number`` in steps of ``stride``. ``exhausted``
    tells that the sessions came to their end before the load did.
    """

    target: Target
    sessions: Iterator[Session]
    sampling: Sampling = field(default_factory=Sampling)
    start: float = 0.0
    end: float = float("inf")
    opens: float = 0.0
    least: int = 0
    limit: int | None = None
    first_number: int = 0
    stride: int = 1
    on_record: Callable[[RequestRecord], None] = lambda record: None
    started: int = 0
    started_inside: int = 0
    exhausted: bool = False
    records: list[RequestRecord] = field(default_factory=list)

    def admits(self, intended: float) -> bool:
        """Whether another request may start then."""
        if self.limit is not None and self.started >= self.limit:
            return False
        return intended < self.end or self.started_inside < self.least

    async def send(
        self, session: Session, turn: int, answers: list[str], intended: float
    ) -> RequestRecord:
        """Run one turn and keep its record."""
        self.started += 1
        self.started_inside += intended >= self.opens
        wanted = session.turns[turn]
        request = Request(
            number=self.first_number + (self.started - 1) * self.stride,
            prompt=session.prompt(turn, answers),
            max_tokens=wanted.max_tokens,
            min_tokens=wanted.min_tokens,
            intended=intended,
            session=session.number,
            turn=turn,
            request_class=session.request_class,
            sampling=self.sampling,
        )
        record = await self.target.generate(request)
        self.records.append(record)
        self.on_record(record)
        return record

    async def play(self, session: Session, intended: float) -> float:
        """Run a session's turns one after another; returns when the last one ended.

        A session whose turn fails ends there, because there is no answer to go on from.
        """
        answers: list[str] = []
        for turn in range(len(session.turns)):
            if turn and session.think_time:
                await _sleep_until(intended)
            if not self.admits(intended):
                break
            record = await self.send(session, turn, answers, intended)
            intended = record.ended + session.think_time
            answers.append(record.text)
            if not record.ok:
                # A server that refuses at once must not make this loop spin.
                await asyncio.sleep(0.01)
                return clock()
        return intended - session.think_time


async def drive(phase: Phase, load: Load, offsets: Iterator[float]) -> None:
    """Run ``phase`` under ``load`` until it admits no more and every answer is in.

    ``offsets`` are the starts of an open loop's sessions, in seconds from the phase's start.
    """
    phase.start = phase.start or clock()
    async with _Group() as group:
        if isinstance(load, ClosedLoop):
            for _ in range(load.concurrency):
                group.start(_user(phase, load.think_time))
            return
        for offset, session in zip(offsets, phase.sessions, strict=False):
            intended = phase.start + offset
            if not phase.admits(intended):
                return
            await _sleep_until(intended)
            group.start(phase.play(session, intended))
            # A limit counts what has been started, so the start has to happen now.
            await asyncio.sleep(0)
        phase.exhausted = True


async def _user(phase: Phase, think_time: float) -> None:
    intended = phase.start
    while phase.admits(intended):
        session = next(phase.sessions, None)
        if session is None:
            phase.exhausted = True
            return
        intended = await phase.play(session, intended) + think_time
        if think_time and phase.admits(intended):
            await _sleep_until(intended)


async def _sleep_until(when: float) -> None:
    await asyncio.sleep(max(0.0, when - clock()))


class _Group:
    """Tasks that end together: like ``asyncio.TaskGroup``, which Python 3.10 lacks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._failed: BaseException | None = None

    def start(self, work: object) -> None:
        task: asyncio.Task[object] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def __aenter__(self) -> _Group:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        try:
            while error is None and self._tasks and not self._failed:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # The caller was cancelled, or one of the tasks has a bug: the rest go too.
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
        if self._failed:
            raise self._failed

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():
            self._failed = self._failed or task.exception()
