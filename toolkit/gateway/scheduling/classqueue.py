"""The waiting jobs of one class: each owner's by rank and by age, the owners in turn.

An owner is an API key. Who of them is next is decided as between classes, by start-time fair
queueing (Goyal, Vin and Cheng, 1996), with equal shares: the one whose work has come to least since
it began to want some. So however much one key asks for, another waits for its own requests only,
and for one of each other key's in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.lazyheap import LazyHeap
from toolkit.gateway.scheduling.replica import Job

CANDIDATES = 4  # of an owner, and owners; more are not tried when the first do not fit anywhere
_IDLE_CLOCKS = 64  # of owners with nothing waiting, kept before those that mean nothing go


class _Waiting:
    """One owner's jobs."""

    def __init__(self) -> None:
        self.cost_s = 0.0
        self.ranked: LazyHeap[Job] = LazyHeap()
        self.by_age: LazyHeap[Job] = LazyHeap()

    def __len__(self) -> int:
        return len(self.by_age)

    def push(self, job: Job) -> None:
        self.ranked.push(job.rank, job.ticket.id, job)
        self.by_age.push(job.ticket.arrived, job.ticket.id, job)
        self.cost_s += job.cost_s

    def discard(self, job: Job) -> None:
        self.ranked.discard(job.ticket.id)
        self.by_age.discard(job.ticket.id)
        self.cost_s = self.cost_s - job.cost_s if len(self) else 0.0

    def oldest(self) -> Job | None:
        first = self.by_age.first()
        return first[1] if first else None

    def candidates(self, now: float, starvation_after: float) -> Iterator[Job]:
        oldest, first = self.oldest(), self.ranked.first()
        if oldest is None or first is None:
            return
        head = first[1] if now - oldest.ticket.arrived < starvation_after else oldest
        yield head
        # Hardly ever needed: only when the first did not fit.
        yield from (job for job in self.ranked.smallest(CANDIDATES) if job is not head)


class ClassQueue:
    """See the module; ``cost_s`` is the predicted work of all that waits, engine-seconds."""

    def __init__(self, policy: ClassPolicy) -> None:
        self.policy = policy
        self.cost_s = 0.0
        self._by_age: LazyHeap[Job] = LazyHeap()
        self._owners: dict[str, _Waiting] = {}  # those with something waiting
        self._clocks: dict[str, float] = {}
        self._time = 0.0

    def __len__(self) -> int:
        return len(self._by_age)

    def push(self, job: Job) -> None:
        """A job begins to wait."""
        owner = job.ticket.owner
        waiting = self._owners.get(owner)
        if waiting is None:
            # Neither a claim saved up in idleness, nor a debt for what nobody else wanted.
            self._clocks[owner] = max(self._clocks.get(owner, 0.0), self._time)
            waiting = self._owners[owner] = _Waiting()
        waiting.push(job)
        self._by_age.push(job.ticket.arrived, job.ticket.id, job)
        self.cost_s += job.cost_s

    def discard(self, job: Job) -> None:
        """A job no longer waits."""
        owner = job.ticket.owner
        waiting = self._owners.get(owner)
        if waiting is None:
            return
        waiting.discard(job)
        if not len(waiting):
            del self._owners[owner]
        self._by_age.discard(job.ticket.id)
        self.cost_s = self.cost_s - job.cost_s if len(self) else 0.0
        if not len(self):
            # Nobody wants anything: what was served before delays nobody, and is no debt.
            self._time = max(self._clocks.values())
            self._clocks = {}
        self._forget_idle()

    def sent(self, job: Job) -> None:
        """A job gets its work done; called before it is discarded."""
        self._time = max(self._time, min(self._clocks[name] for name in self._owners))
        self._clocks[job.ticket.owner] += job.cost_s

    def settle(self, job: Job, difference_s: float) -> None:
        """A sent job's work was more (or less) than predicted."""
        owner = job.ticket.owner
        self._clocks[owner] = self._clocks.get(owner, self._time) + difference_s

    def _forget_idle(self) -> None:
        if len(self._clocks) <= len(self._owners) + _IDLE_CLOCKS:
            return
        # A clock that is behind would be set to the time when its owner comes back.
        self._clocks = {
            name: clock
            for name, clock in self._clocks.items()
            if name in self._owners or clock > self._time
        }

    def oldest(self) -> Job | None:
        """The one that came first."""
        first = self._by_age.first()
        return first[1] if first else None

    def oldest_of_next(self) -> Job | None:
        """The one that came first, of the owner whose turn it is."""
        if not self._owners:
            return None
        return self._owners[min(self._owners, key=self._clocks.__getitem__)].oldest()

    def candidates(self, now: float, starvation_after: float) -> Iterator[Job]:
        """Of the owner whose turn it is, the first by rank, or the oldest before it once it has
        waited too long; then others."""
        if len(self._owners) > 1:
            turns = sorted(self._owners, key=self._clocks.__getitem__)
        else:
            turns = list(self._owners)
        each = (self._owners[name].candidates(now, starvation_after) for name in turns)
        return chain.from_iterable(islice(each, CANDIDATES))

    def cost_before(self, owner: str | None) -> float:
        """The predicted work before a new job of this owner's: its own, and others' meanwhile.

        None: everybody's.
        """
        if owner is None:
            return self.cost_s
        if owner in self._owners:
            own, turn = self._owners[owner].cost_s, self._clocks[owner]
        else:
            own, turn = 0.0, max(self._clocks.get(owner, 0.0), self._time)
        turn += own  # its clock when the new one is next
        before = own
        for name, waiting in self._owners.items():
            behind = turn - self._clocks[name]
            if name != owner and behind >= 0:  # and one more: whoever is level goes first
                before += min(waiting.cost_s, behind + waiting.cost_s / len(waiting))
        return before

    def jobs_before(self, owner: str | None) -> int:
        """How many jobs come before a new one of this owner's, likewise."""
        if owner is None:
            return len(self)
        own = len(self._owners[owner]) if owner in self._owners else 0
        others = (len(w) for name, w in self._owners.items() if name != owner)
        return own + sum(min(own + 1, count) for count in others)
