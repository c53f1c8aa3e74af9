"""The scheduler's one face."""

from __future__ import annotations

from collections import Counter, deque

from toolkit.gateway.scheduling.replica import Job, Replica
from toolkit.gateway.scheduling.tickets import (
    Assignment,
    ModelState,
    Overdue,
    Refusal,
    ReplicaLoad,
    ReplicaSpec,
    ReplicaState,
    Snapshot,
    Ticket,
)
from toolkit.spec.gateway import RequestClass, Scheduling


class Scheduler:
    """Holds requests back until an engine has room, and says who goes where."""

    def __init__(self, scheduling: Scheduling) -> None:
        self._classes: dict[str, RequestClass] = dict(scheduling.classes)
        self._replicas: dict[str, Replica] = {}
        self._jobs: dict[str, Job] = {}
        self._queues: dict[str, deque[Job]] = {}

    @classmethod
    def of(cls, scheduling: Scheduling) -> Scheduler:
        """The scheduler that a deployment's ``scheduling`` section asks for."""
        return cls(scheduling)

    def add_replica(self, spec: ReplicaSpec, now: float) -> None:
        """An engine is ready. Raises ValueError if its id is taken."""
        if spec.id in self._replicas:
            raise ValueError(f"replica {spec.id} is there already")
        self._replicas[spec.id] = Replica(spec)
        self._queues.setdefault(spec.model, deque())

    def remove_replica(self, replica: str, now: float) -> tuple[str, ...]:
        """An engine is gone for good; returns the tickets it had, to requeue or withdraw."""
        gone = self._replicas.pop(replica, None)
        return tuple(gone.jobs) if gone else ()

    def eject(self, replica: str, now: float) -> tuple[str, ...]:
        """Send nothing more to a failing engine; returns its tickets, to requeue or withdraw."""
        failing = self._replicas.get(replica)
        if failing is None:
            return ()
        failing.up = False
        return tuple(failing.jobs)

    def readmit(self, replica: str, now: float) -> None:
        """An ejected engine works again."""
        if replica in self._replicas:
            self._replicas[replica].up = True

    def observe(self, replica: str, load: ReplicaLoad, now: float) -> None:
        """What an engine's live metrics say."""

    def submit(self, ticket: Ticket, now: float) -> Refusal | None:
        """A request comes: None when it waits, otherwise why it is not taken.

        Raises:
            ValueError: the id is in use.
            KeyError: no such class.
        """
        policy = self._classes[ticket.request_class]
        if ticket.id in self._jobs:
            raise ValueError(f"ticket {ticket.id} is there already")
        servers = [r for r in self._replicas.values() if r.spec.model == ticket.model and r.up]
        if not servers:
            return Refusal("no_replica", f"no replica serves {ticket.model} now", 5.0)
        if not any(r.holds_at_all(ticket) for r in servers):
            return Refusal("too_large", "the request is larger than the engine's KV cache", 0.0)
        if self._queued(ticket.model)[ticket.request_class] >= policy.max_queued:
            return Refusal("queue_full", f"{policy.max_queued} requests wait already", 5.0)
        self._enter(Job(ticket))
        return None

    def _enter(self, job: Job) -> None:
        self._jobs[job.ticket.id] = job
        self._queues[job.ticket.model].append(job)

    def _queued(self, model: str) -> Counter[str]:
        return Counter(job.ticket.request_class for job in self._queues.get(model, ()))

    def dispatch(self, now: float) -> list[Assignment]:
        """Who goes where, now. The scheduler counts them as sent."""
        sent = []
        for queue in self._queues.values():
            while queue:
                job = queue[0]
                fitting = [
                    r
                    for r in self._replicas.values()
                    if r.spec.model == job.ticket.model and r.fits(job)
                ]
                if not fitting:
                    break
                replica = min(fitting, key=lambda r: (r.outstanding, r.spec.id))
                queue.popleft()
                job.replica, job.sent_at = replica.spec.id, now
                replica.take(job)
                sent.append(Assignment(job.ticket.id, replica.spec.id))
        return sent

    def first_token(self, ticket: str, now: float) -> None:
        """The first token has come; :meth:`progress` counts it."""
        job = self._jobs.get(ticket)
        if job is not None and job.first_token_at is None:
            job.first_token_at = now

    def progress(self, ticket: str, tokens: int, now: float) -> None:
        """So many more tokens have come, the first one included."""
        job = self._jobs.get(ticket)
        if job is not None and job.replica in self._replicas:
            self._replicas[job.replica].progress(job, tokens)

    def finish(self, ticket: str, *, output_tokens: int, cached_tokens: int, now: float) -> None:
        """The answer is complete: its room is free."""
        self._leave(ticket)

    def withdraw(self, ticket: str, now: float) -> None:
        """The client is gone or the request failed; does nothing the second time."""
        self._leave(ticket)

    def _leave(self, ticket: str) -> None:
        job = self._jobs.pop(ticket, None)
        if job is None:
            return
        if job.replica is None:
            self._queues[job.ticket.model].remove(job)
        else:
            self._vacate(job)

    def _vacate(self, job: Job) -> None:
        replica = self._replicas.get(job.replica or "")
        if replica is not None and job.ticket.id in replica.jobs:
            replica.drop(job)

    def requeue(self, ticket: str, now: float) -> Refusal | None:
        """Its replica failed before a token: wait again, with its age, for another replica.

        A refused ticket is forgotten. Raises ValueError for one that has produced a token.
        """
        job = self._jobs.get(ticket)
        if job is None or job.replica is None:
            return None
        if job.tokens:
            raise ValueError(f"ticket {ticket} has produced tokens")
        self._vacate(job)
        job.shunned |= {job.replica}
        job.replica = None
        others = [
            r
            for r in self._replicas.values()
            if r.spec.model == job.ticket.model and r.spec.id not in job.shunned
        ]
        if not others:
            del self._jobs[ticket]
            return Refusal("no_replica", f"no other replica serves {job.ticket.model}", 5.0)
        queue = self._queues[job.ticket.model]
        place = sum(1 for other in queue if other.ticket.arrived <= job.ticket.arrived)
        queue.insert(place, job)
        return None

    def overdue(self, now: float) -> list[Overdue]:
        """Tickets past their wait or deadline, for the caller to end and withdraw."""
        late = []
        for job in self._jobs.values():
            wait = self._classes[job.ticket.request_class].max_wait
            waited_out = job.replica is None and wait and now - job.ticket.arrived > wait
            missed = job.ticket.deadline is not None and now >= job.ticket.deadline
            if waited_out or missed:
                late.append(Overdue(job.ticket.id, job.replica is not None))
        return late

    def wake_at(self, now: float) -> float | None:
        """When to ask again even if nothing happens."""
        times = []
        for job in self._jobs.values():
            wait = self._classes[job.ticket.request_class].max_wait
            if job.replica is None and wait:
                times.append(job.ticket.arrived + wait)
            if job.ticket.deadline is not None:
                times.append(job.ticket.deadline)
        return min(times, default=None)

    def snapshot(self, now: float) -> Snapshot:
        """The state at one moment."""
        return Snapshot(
            models=tuple(
                ModelState(name, dict(self._queued(name)), {}) for name in sorted(self._queues)
            ),
            replicas=tuple(self._state(replica) for replica in self._replicas.values()),
        )

    def _state(self, replica: Replica) -> ReplicaState:
        return ReplicaState(
            id=replica.spec.id,
            model=replica.spec.model,
            up=replica.up,
            slots=replica.spec.slots,
            room=max(0, replica.spec.slots - len(replica.jobs)),
            running=Counter(job.ticket.request_class for job in replica.jobs.values()),
            outstanding_tokens=replica.outstanding,
            kv_tokens=replica.spec.kv_tokens,
            kv_reserved=replica.kv_reserved,
        )
