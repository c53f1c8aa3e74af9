"""Which waiting request is next: by arrival, or by class, age and predicted work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Protocol

from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.classqueue import ClassQueue
from toolkit.gateway.scheduling.replica import Job
from toolkit.gateway.scheduling.shares import FairShares

Allowed = Callable[[str], bool]

LEAD_S = 2.0  # seconds of all engines' work that an urgent class may run ahead of its share
STARVED_SHARE = 0.25  # of the work, at most, that goes out of turn to those who waited too long


class Order(Protocol):
    """What a policy decides."""

    queues: dict[str, ClassQueue]
    speed: float  # engine-seconds a second, all replicas together

    def push(self, job: Job, stay_s: float) -> None:
        """A job waits; it will occupy its slot for about ``stay_s``."""

    def discard(self, job: Job) -> None:
        """A job no longer waits."""

    def candidates(self, now: float, allowed: Allowed) -> Iterator[Job]:
        """Whom to try, best first; those of classes that are not allowed are left out."""

    def sent(self, job: Job, now: float) -> None:
        """A candidate goes to an engine; called before it is discarded."""

    def settle(self, job: Job, cost_s: float) -> None:
        """What a sent job's work came to."""


class ArrivalOrder:
    """First come, first served: who stands first is waited for."""

    def __init__(self, classes: Mapping[str, ClassPolicy]) -> None:
        self.queues = {name: ClassQueue(policy) for name, policy in classes.items()}
        self.speed = 1.0

    def push(self, job: Job, stay_s: float) -> None:
        job.rank = job.ticket.arrived
        self.queues[job.ticket.request_class].push(job)

    def discard(self, job: Job) -> None:
        self.queues[job.ticket.request_class].discard(job)

    def candidates(self, now: float, allowed: Allowed) -> Iterator[Job]:
        heads = (q.oldest() for name, q in self.queues.items() if len(q) and allowed(name))
        first = min((job for job in heads if job), key=lambda j: j.ticket.arrived, default=None)
        if first is not None:
            yield first

    def sent(self, job: Job, now: float) -> None:
        """Nothing to account for."""

    def settle(self, job: Job, cost_s: float) -> None:
        """Nothing to account for."""


class FairOrder:
    """Between classes by weighted share, hurried by targets; within a class shortest first.

    **Within a class** its owners (API keys) take turns, each by the work it has got: one with a
    thousand requests delays another's by about one of them. **Of one owner** a job's rank is its
    arrival plus the time it will hold its slot: a longer one lets a shorter one pass, but only one
    that comes within the difference. The rank never changes, so the order costs a heap. The time
    counts up to the class's target and to ``starvation_after``, after which nobody passes any more.

    **Between classes** the fair clock decides. A class with a TTFT target whose oldest job has
    used up half of it may run ahead of its share: by its part of :data:`LEAD_S` of work when the
    target is reached, a class with a longer target than another's by as much less.

    **Starvation.** Whoever has waited for ``starvation_after`` goes before every younger one of
    any class (of the owners whose turn it is), as long as such exceptions take no more than
    :data:`STARVED_SHARE` of the work. Without that bound a queue longer than ``starvation_after``
    would turn the whole order into that of arrival, just when order matters.
    """

    def __init__(self, classes: Mapping[str, ClassPolicy], starvation_after: float) -> None:
        self.queues = {name: ClassQueue(policy) for name, policy in classes.items()}
        self.speed = 1.0
        self._after = starvation_after
        self._shares = FairShares({name: policy.weight for name, policy in classes.items()})
        targets = {name: p.ttft_s for name, p in classes.items() if p.ttft_s is not None}
        tightest = min(targets.values(), default=0.0)
        weights = sum(policy.weight for policy in classes.values())
        self._lead = {name: LEAD_S / weights * tightest / t for name, t in targets.items()}
        self._owed = 0.0  # work that others must get before the next exception

    def push(self, job: Job, stay_s: float) -> None:
        queue = self.queues[job.ticket.request_class]
        if not len(queue):
            self._shares.joins(queue.policy.name)
        most = min(self._after, queue.policy.ttft_s or self._after)
        job.rank = job.ticket.arrived + min(stay_s, most)
        queue.push(job)

    def discard(self, job: Job) -> None:
        self.queues[job.ticket.request_class].discard(job)

    def candidates(self, now: float, allowed: Allowed) -> Iterator[Job]:
        waiting = [q for name, q in self.queues.items() if len(q) and allowed(name)]
        if len(waiting) > 1:
            waiting.sort(key=lambda q: self._key(q, now))
            starved = self._starved(waiting, now)
            if starved is not None:
                yield starved
        yield from chain.from_iterable(q.candidates(now, self._after) for q in waiting)

    def _starved(self, waiting: list[ClassQueue], now: float) -> Job | None:
        if self._owed > 1e-9:
            return None
        # Of the owners whose turn it is: one with a long queue has always somebody old.
        heads = [job for q in waiting if (job := q.oldest_of_next())]
        oldest = min(heads, key=lambda job: job.ticket.arrived)
        return oldest if now - oldest.ticket.arrived >= self._after else None

    def _key(self, queue: ClassQueue, now: float) -> float:
        target, oldest = queue.policy.ttft_s, queue.oldest()
        if target is None or oldest is None:
            return self._shares.key(queue.policy.name)
        lead = self._lead[queue.policy.name]
        used = (now - oldest.ticket.arrived) / target
        urgency = min(1.0, max(0.0, 2 * used - 1))
        return self._shares.key(queue.policy.name) - urgency * lead * self.speed

    def sent(self, job: Job, now: float) -> None:
        name = job.ticket.request_class
        self.queues[name].sent(job)
        self._shares.charge(name, job.cost_s, [n for n, q in self.queues.items() if len(q)])
        if now - job.ticket.arrived >= self._after:
            self._owed = max(self._owed, job.cost_s)
        else:
            self._owed = max(0.0, self._owed - job.cost_s * STARVED_SHARE / (1 - STARVED_SHARE))

    def settle(self, job: Job, cost_s: float) -> None:
        name, difference = job.ticket.request_class, cost_s - job.cost_s
        self.queues[name].settle(job, difference)
        self._shares.settle(name, difference)
