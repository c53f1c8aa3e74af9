"""The scheduler's one face: all models, all classes."""

from __future__ import annotations

import math
from collections import Counter

from toolkit.gateway.scheduling.admission import refusal
from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.expiry import Expiries
from toolkit.gateway.scheduling.lane import Lane
from toolkit.gateway.scheduling.queued import Queued
from toolkit.gateway.scheduling.replica import Job, Replica
from toolkit.gateway.scheduling.tickets import (
    Assignment,
    ModelState,
    Overdue,
    Refusal,
    ReplicaLoad,
    ReplicaSpec,
    Snapshot,
    Ticket,
)
from toolkit.spec.gateway import Scheduling

_REMIND_S = 0.25  # a caller may leave an engine some time to end what is late by itself


class Scheduler:
    """Holds requests back until an engine has room, and says who goes where.

    Call :meth:`dispatch` after whatever may have made room or work (submit, first token, finish,
    withdraw, requeue, observe, a replica's change), and at :meth:`wake_at`. Events of a ticket
    that is not known (any more) do nothing, so callers need not order a client's going and an
    answer's coming. Not thread-safe.
    """

    def __init__(self, scheduling: Scheduling) -> None:
        self._scheduling = scheduling
        self._classes = {
            name: ClassPolicy.of(name, written) for name, written in scheduling.classes.items()
        }
        self._lanes: dict[str, Lane] = {}
        self._where: dict[str, Lane] = {}  # by replica
        self._jobs: dict[str, Job] = {}
        self._queued = Queued(shared=scheduling.policy == "latency_aware")
        self._running: Counter[str] = Counter()
        self._expiries = Expiries()

    @property
    def starvation_after(self) -> float:
        """Seconds that nobody is to be kept waiting beyond his turn, or in vain."""
        return float(self._scheduling.starvation_after)

    @classmethod
    def of(cls, scheduling: Scheduling) -> Scheduler:
        """The scheduler that a deployment's ``scheduling`` section asks for."""
        return cls(scheduling)

    def add_replica(self, spec: ReplicaSpec, now: float) -> None:
        """An engine is ready, and new: who has failed on another of its name may be sent there.

        Raises ValueError if its id is taken.
        """
        if spec.id in self._where:
            raise ValueError(f"replica {spec.id} is there already")
        if spec.model not in self._lanes:
            self._lanes[spec.model] = Lane(self._scheduling, self._classes, self._running)
        self._where[spec.id] = self._lanes[spec.model]
        for job in self._jobs.values():
            job.shunned -= {spec.id}
        self._where[spec.id].add(spec, now)

    def remove_replica(self, replica: str, now: float) -> tuple[str, ...]:
        """An engine is gone for good; returns the tickets it had, to requeue or withdraw."""
        lane = self._where.pop(replica, None)
        if lane is None:
            return ()
        gone = lane.replicas.pop(replica)
        gone.eject()
        lane.changed(now)
        return tuple(gone.jobs)

    def eject(self, replica: str, now: float) -> tuple[str, ...]:
        """Send nothing more to a failing engine; returns its tickets, to requeue or withdraw."""
        lane = self._where.get(replica)
        if lane is None:
            return ()
        lane.replicas[replica].eject()
        lane.changed(now)
        return tuple(lane.replicas[replica].jobs)

    def readmit(self, replica: str, now: float) -> None:
        """An ejected engine works again."""
        lane = self._where.get(replica)
        if lane is not None:
            lane.replicas[replica].up = True
            lane.changed(now)

    def observe(self, replica: str, load: ReplicaLoad, now: float) -> None:
        """What an engine's live metrics say."""
        lane = self._where.get(replica)
        if lane is not None:
            lane.replicas[replica].observe(load, now)

    def submit(self, ticket: Ticket, now: float) -> Refusal | None:
        """A request comes: None when it waits, otherwise why it is not taken.

        Raises:
            ValueError: the id is in use.
            KeyError: no such class.
        """
        policy = self._classes[ticket.request_class]
        if ticket.id in self._jobs:
            raise ValueError(f"ticket {ticket.id} is there already")
        lane = self._lanes.get(ticket.model)
        job = Job(ticket)
        refused = refusal(job, policy, lane, self._queued, now)
        if refused is not None or lane is None:
            return refused
        self._jobs[ticket.id] = job
        self._wait(job, lane)
        return None

    def _wait(self, job: Job, lane: Lane) -> None:
        lane.push(job)
        self._queued.add(job.ticket)
        self._expiries.waits(job, self._classes[job.ticket.request_class])

    def dispatch(self, now: float) -> list[Assignment]:
        """Who goes where, now. The scheduler counts them as sent."""
        self._let_expire(now)
        sent = []
        for lane in self._lanes.values():
            for job in lane.dispatch(now):
                self._queued.remove(job.ticket)
                self._expiries.runs(job)
                sent.append(Assignment(job.ticket.id, job.replica or ""))
        return sent

    def first_token(self, ticket: str, now: float) -> None:
        """The first token has come; :meth:`progress` counts it."""
        job, replica = self._sent(ticket)
        if job is not None and replica is not None:
            replica.first_token(job, now)

    def progress(self, ticket: str, tokens: int, now: float) -> None:
        """So many more tokens have come, the first one included."""
        job, replica = self._sent(ticket)
        if job is not None and replica is not None:
            lane = self._lanes[job.ticket.model]
            replica.progress(job, tokens, lane.lengths[job.ticket.request_class])

    def finish(
        self, ticket: str, *, output_tokens: int, cached_tokens: int | None, now: float
    ) -> None:
        """The answer is complete: its room is free.

        ``cached_tokens``: None when the engine does not say.
        """
        job = self._jobs.get(ticket)
        if job is None or job.replica is None:
            self._leave(ticket, now)
            return
        lane = self._lanes[job.ticket.model]
        cost = lane.learn(job, output_tokens, cached_tokens, now)
        self._forget(job)
        lane.vacate(job, cost, now)

    def withdraw(self, ticket: str, now: float) -> None:
        """The client is gone or the request failed; does nothing the second time."""
        self._leave(ticket, now)

    def _leave(self, ticket: str, now: float) -> None:
        job = self._jobs.get(ticket)
        if job is None:
            return
        lane = self._lanes[job.ticket.model]
        self._forget(job)
        if job.replica is None:
            self._unqueue(job, lane)
            return
        if job.tokens:
            lane.lengths[job.ticket.request_class].observe(job.tokens, cut=True)
        lane.vacate(job, lane.price(job, job.tokens), now)

    def _forget(self, job: Job) -> None:
        del self._jobs[job.ticket.id]
        self._expiries.forget(job)

    def _unqueue(self, job: Job, lane: Lane) -> None:
        if not job.expired:
            lane.discard(job)
            self._queued.remove(job.ticket)

    def requeue(
        self, ticket: str, now: float, *, full_until: float | None = None
    ) -> Refusal | None:
        """Its replica failed before a token: wait again, with its age, for another replica.

        With ``full_until`` the replica only had no place: it may have the ticket again, and gets
        nothing until then. A refused ticket is forgotten. Raises ValueError for one that has
        produced a token.
        """
        job = self._jobs.get(ticket)
        if job is None or job.replica is None:
            return None
        if job.tokens:
            raise ValueError(f"ticket {ticket} has produced tokens")
        lane = self._lanes[job.ticket.model]
        failed, holder = job.replica, lane.holder(job)
        lane.give_back(job)
        if full_until is not None and holder is not None:
            holder.full(full_until)
        job.wait_again(failed if full_until is None else None)
        if not any(
            name not in job.shunned and replica.holds_at_all(job.ticket)
            for name, replica in lane.replicas.items()
        ):
            self._forget(job)
            return Refusal("no_replica", f"no other replica serves {job.ticket.model}", 5.0)
        lane.estimate(job)
        self._wait(job, lane)
        return None

    def overdue(self, now: float) -> list[Overdue]:
        """Tickets past their wait or deadline, for the caller to end and withdraw.

        They are named at every call until they are withdrawn. What waits for a model without any
        replica that is up counts as overdue after ``starvation_after``.
        """
        self._let_expire(now)
        return [Overdue(job.ticket.id, job.replica is not None) for job in self._expiries.over()]

    def _let_expire(self, now: float) -> None:
        for job in self._expiries.fall_due(now):
            if job.replica is None:
                self._unqueue(job, self._lanes[job.ticket.model])
                job.expired = True
        for lane in self._lanes.values():
            given_up = lane.given_up_at()
            if given_up is not None and now >= given_up:
                for job in lane.queued():
                    self._unqueue(job, lane)
                    job.expired = True
                    self._expiries.fall(job)

    def wake_at(self, now: float) -> float | None:
        """When to call :meth:`overdue` and :meth:`dispatch` though nothing happens."""
        times = [self._expiries.next_at(), *(lane.wake_at(now) for lane in self._lanes.values())]
        if self._expiries.over():
            times.append(now + _REMIND_S)
        return min((time for time in times if time is not None), default=None)

    def snapshot(self, now: float) -> Snapshot:
        """The state at one moment."""
        models = []
        for model, lane in self._lanes.items():
            queued = {name: len(queue) for name, queue in lane.order.queues.items()}
            waits = {name: lane.wait_s(name, now) for name in self._classes}
            known = {name: wait for name, wait in waits.items() if wait < math.inf}
            models.append(ModelState(model, queued, known))
        return Snapshot(
            models=tuple(models),
            replicas=tuple(
                replica.state(now)
                for lane in self._lanes.values()
                for replica in lane.replicas.values()
            ),
        )

    def _sent(self, ticket: str) -> tuple[Job | None, Replica | None]:
        job = self._jobs.get(ticket)
        if job is None or job.replica is None:
            return None, None
        return job, self._lanes[job.ticket.model].holder(job)
