"""Whose time is up, without looking at everybody."""

from __future__ import annotations

from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.lazyheap import LazyHeap
from toolkit.gateway.scheduling.replica import Job


class Expiries:
    """The next moment at which each job's wait or deadline ends."""

    def __init__(self) -> None:
        self._due: LazyHeap[Job] = LazyHeap()
        self._over: dict[str, Job] = {}

    def waits(self, job: Job, policy: ClassPolicy) -> None:
        """The job waits: until its deadline, or its class's longest wait."""
        due = job.ticket.deadline
        if policy.max_wait_s is not None:
            until = job.ticket.arrived + policy.max_wait_s
            due = until if due is None else min(due, until)
        if due is not None:
            self._due.push(due, job.ticket.id, job)

    def runs(self, job: Job) -> None:
        """The job is with an engine: only its deadline counts."""
        if job.ticket.deadline is not None:
            self._due.push(job.ticket.deadline, job.ticket.id, job)
        else:
            self._due.discard(job.ticket.id)

    def forget(self, job: Job) -> None:
        """The job has left."""
        self._due.discard(job.ticket.id)
        self._over.pop(job.ticket.id, None)

    def fall_due(self, now: float) -> list[Job]:
        """Those whose time is up since the last look; they stay in :meth:`over`."""
        fallen = []
        while (first := self._due.first()) is not None and first[0] <= now:
            self.fall(first[1])
            fallen.append(first[1])
        return fallen

    def fall(self, job: Job) -> None:
        """This job's time is up, whatever it was."""
        self._due.discard(job.ticket.id)
        self._over[job.ticket.id] = job

    def over(self) -> list[Job]:
        """Everybody whose time is up and who has not left."""
        return list(self._over.values())

    def next_at(self) -> float | None:
        """The next moment at which somebody's time is up."""
        first = self._due.first()
        return first[0] if first else None
