"""One model's queue and the replicas that serve it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from toolkit.gateway.scheduling.capacity import Capacity
from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.lengths import LengthModel
from toolkit.gateway.scheduling.order import ArrivalOrder, FairOrder, Order
from toolkit.gateway.scheduling.pace import Average, Prices
from toolkit.gateway.scheduling.replica import Job, Replica
from toolkit.gateway.scheduling.reserve import Reserve
from toolkit.gateway.scheduling.routing import choose
from toolkit.gateway.scheduling.tickets import ReplicaSpec
from toolkit.gateway.scheduling.waits import Waits
from toolkit.spec.gateway import Scheduling

_CAPACITY_S = 0.1
_STARTS_KNOWN = 20  # first tokens seen before prompts ahead of an urgent class are limited


class Lane:
    """Orders, places and learns for one model.

    ``running`` counts the requests of each class in all engines of all models: the classes'
    ``max_running`` is about those.
    """

    def __init__(
        self, scheduling: Scheduling, classes: Mapping[str, ClassPolicy], running: Counter[str]
    ) -> None:
        self._classes = classes
        self._running = running
        self._fair = scheduling.policy == "latency_aware"
        self._affinity = scheduling.prefix_affinity
        self._starvation_after = float(scheduling.starvation_after)
        self.order: Order = (
            FairOrder(classes, self._starvation_after) if self._fair else ArrivalOrder(classes)
        )
        self.replicas: dict[str, Replica] = {}
        self.lengths = {name: LengthModel() for name in classes}
        self.waits = Waits(classes)
        self._stays = {name: Average() for name in classes}
        self._reserve = Reserve(classes)
        self._prices: Prices | None = None
        self._up: list[Replica] = []
        self._capacity = Capacity()
        self._looked_at = -math.inf
        self._held: tuple[Job, Replica] | None = None
        self._down_since: float | None = None

    # Replicas

    def add(self, spec: ReplicaSpec, now: float) -> None:
        """One more; the first one's expectations are the model's prices."""
        if self._prices is None:
            self._prices = Prices.of(spec)
        self.replicas[spec.id] = Replica(spec, self._prices)
        self.changed(now)

    def changed(self, now: float) -> None:
        """Replicas have come, gone, failed or recovered."""
        self._up = [replica for replica in self.replicas.values() if replica.up]
        self._look(now)
        if self._up:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = now
        if self._held and not self._held[1].up:
            self._held = None

    def up(self) -> list[Replica]:
        """Those that take requests."""
        return self._up

    def given_up_at(self) -> float | None:
        """When what waits is no longer kept waiting for a replica; None while there is one."""
        return None if self._down_since is None else self._down_since + self._starvation_after

    # The queue

    def __len__(self) -> int:
        return sum(len(queue) for queue in self.order.queues.values())

    def arrives(self, job: Job, now: float) -> None:
        """Learn from an arrival, whether it will be taken or not."""
        self._reserve.arrives(job.ticket.request_class, now)
        self.waits.arrives(job, now)

    def push(self, job: Job) -> None:
        """A job waits."""
        self.order.push(job, self.stay_s(job))

    def discard(self, job: Job) -> None:
        """A job waits no longer."""
        self.order.discard(job)
        if self._held and self._held[0] is job:
            self._held = None

    def queued(self) -> Iterable[Job]:
        """Everybody who waits, oldest of each class first; take each out before the next."""
        for queue in self.order.queues.values():
            while (job := queue.oldest()) is not None:
                yield job

    # Forecasts

    def estimate(self, job: Job) -> None:
        """Fill in what the job is expected to need."""
        ticket = job.ticket
        job.expected = self.lengths[ticket.request_class].mean(ticket.max_tokens)
        cached = max((replica.cached_tokens(ticket) for replica in self.up()), default=0)
        if self._prices is not None:
            job.cost_s = self._prices.cost(ticket.prompt_tokens - cached, job.expected)

    def stay_s(self, job: Job) -> float:
        """Seconds that a job will hold its slot."""
        return self._capacity.stay_s(job.uncached, job.expected)

    def capacity(self, now: float) -> Capacity:
        """What the replicas that are up can do together; a tenth of a second old at most."""
        if now - self._looked_at >= _CAPACITY_S:
            self._look(now)
        return self._capacity

    def _look(self, now: float) -> None:
        self._capacity = Capacity.of(self._up)
        self.order.speed = self._capacity.speed
        self._looked_at = now

    def plain_wait_s(self, name: str, stay_s: float, now: float, owner: str | None = None) -> float:
        """The forecast of a new request's wait, before experience corrects it.

        Without an ``owner``: of the one with the most waiting.
        """
        up = self.up()
        if not up:
            return math.inf
        queue, capped = self.order.queues[name], self._classes[name].max_running
        if capped is not None and self._running[name] >= capped:
            before = queue.jobs_before(owner) if self._fair else len(queue)
            behind = (before + 1) * stay_s / capped
        else:
            behind = 0.0
            if not len(queue):
                free = sum(replica.room(now) for replica in up)
                waiting = [other for other, others in self.order.queues.items() if len(others)]
                if free > self._wanted(name, waiting, now):
                    return 0.0
        queues, capacity = self.order.queues, self._capacity
        if self._fair:
            return max(behind, self.waits.fair(name, queues, capacity, now, owner))
        return max(behind, self.waits.arrival(queues, capacity))

    def foresee(self, job: Job, now: float) -> float:
        """The wait of a new job, seconds; remembered, to be compared with what comes."""
        self.capacity(now)
        name, owner = job.ticket.request_class, job.ticket.owner
        job.foreseen_s = self.plain_wait_s(name, self.stay_s(job), now, owner)
        return self.waits.corrected(name, job.foreseen_s)

    def wait_s(self, name: str, now: float) -> float:
        """The wait of a class's next request, seconds; infinite without a replica.

        Changes nothing: who watches the scheduler must not change what it does.
        """
        stay_s = self._stays[name].known(0.0)
        return self.waits.corrected(name, self.plain_wait_s(name, stay_s, now))

    # Dispatch

    def dispatch(self, now: float) -> list[Job]:
        """Send whoever may go; they carry their replica."""
        sent: list[Job] = []
        up = self.up()
        self._reserve.pass_time(self.capacity(now).slots, now)
        rooms = {replica: room for replica in up if (room := replica.room(now)) > 0}
        if not rooms or not len(self):
            self._reserve.idles(0, now)
            return sent
        waiting = [name for name, queue in self.order.queues.items() if len(queue)]
        wanted = {name: self._wanted(name, waiting, now) for name in waiting}
        while rooms and (found := self._next(rooms, wanted, up, now)):
            job, replica = found
            self._send(job, replica, now)
            sent.append(job)
            rooms[replica] -= 1
            if not rooms[replica]:
                del rooms[replica]
        free = sum(rooms.values())
        held_back = any(len(q) and wanted[name] >= free for name, q in self.order.queues.items())
        self._reserve.idles(free if held_back else 0, now)
        return sent

    def wake_at(self, now: float) -> float | None:
        """When :meth:`dispatch` may find something though nothing happens."""
        if not len(self):
            return None
        times = [self._reserve.spent_at(self._capacity.slots, now), self.given_up_at()]
        times += [replica.may_rise_at(now) for replica in self.up()]
        return min((t for t in times if t is not None and t > now), default=None)

    def _wanted(self, name: str, waiting: Collection[str], now: float) -> int:
        if not self._fair:
            return 0
        capacity = self._capacity
        return self._reserve.wanted(name, capacity.ends_per_s, capacity.start_s, now, waiting)

    def _next(
        self, rooms: Mapping[Replica, int], wanted: Mapping[str, int], up: list[Replica], now: float
    ) -> tuple[Job, Replica] | None:
        free = sum(rooms.values())

        def allowed(name: str) -> bool:
            most = self._classes[name].max_running
            return free > wanted[name] and (most is None or self._running[name] < most)

        held = [self._held[0]] if self._held else []
        # Whom a replica is kept for goes there though it is no longer his turn: nobody else may.
        first = (job for job in held if allowed(job.ticket.request_class))
        for job in chain(first, self.order.candidates(now, allowed)):
            fitting = [replica for replica in rooms if self._fits(job, replica, now)]
            if fitting:
                return job, choose(fitting, up, job, affinity=self._affinity)
            self._hold_for(job, now)
        return None

    def _fits(self, job: Job, replica: Replica, now: float) -> bool:
        if replica.spec.id in job.shunned:
            return False
        if self._held and self._held[1] is replica and self._held[0] is not job:
            return False
        name = job.ticket.request_class
        if not replica.has_kv_for(replica.kv_need(job.ticket, self.lengths[name])):
            return False
        return not self._fair or self._lets_prompts_through(job, replica, now)

    def _lets_prompts_through(self, job: Job, replica: Replica, now: float) -> bool:
        """Whether an urgent request that came now would not stand behind too many prompts.

        Half of its target may pass with prompts of less urgent ones; one at a time always may.
        """
        if not replica.unread or replica.pace.start_s.samples < _STARTS_KNOWN:
            return True
        target = self._reserve.tightest(job.ticket.request_class, now)
        if target == math.inf:
            return True
        prompt = job.ticket.prompt_tokens - replica.cached_tokens(job.ticket)
        return (replica.unread + prompt) * replica.pace.start_s.slope <= target / 2

    def _hold_for(self, job: Job, now: float) -> None:
        """Keep the emptiest replica's KV cache for one that does not fit and has waited long."""
        if self._held or now - job.ticket.arrived < self._starvation_after:
            return
        able = [r for r in self.up() if r.spec.id not in job.shunned and r.holds_at_all(job.ticket)]
        if able:
            emptiest = max(able, key=lambda r: (r.spec.kv_tokens - r.kv_reserved, r.spec.id))
            self._held = (job, emptiest)

    def _send(self, job: Job, replica: Replica, now: float) -> None:
        self.order.sent(job, now)
        self.discard(job)
        self.waits.came_true(job, now)
        lengths = self.lengths[job.ticket.request_class]
        replica.take(job, replica.kv_need(job.ticket, lengths), now)
        self._running[job.ticket.request_class] += 1

    # Ends

    def holder(self, job: Job) -> Replica | None:
        """The replica that has the job; None if it was removed, even if another has its name."""
        replica = self.replicas.get(job.replica or "")
        return replica if replica is not None and job.ticket.id in replica.jobs else None

    def give_back(self, job: Job, cost_s: float = 0.0) -> None:
        """A sent job leaves its replica; where nothing came of it, that tells nothing of a pace."""
        self._running[job.ticket.request_class] -= 1
        self.order.settle(job, cost_s)
        replica = self.holder(job)
        if replica is not None:
            replica.drop(job)

    def vacate(self, job: Job, cost_s: float, now: float) -> None:
        """A sent job has come to its end, having cost so much."""
        replica = self.holder(job)
        self.give_back(job, cost_s)
        if replica is not None:
            replica.pace.ended(now, pressed=len(self) > 0)

    def learn(self, job: Job, output_tokens: int, cached_tokens: int | None, now: float) -> float:
        """A whole answer has come; returns what it cost."""
        lengths = self.lengths[job.ticket.request_class]
        lengths.observe(output_tokens, cut=output_tokens >= job.ticket.max_tokens)
        self._stays[job.ticket.request_class].add(now - job.sent_at)
        replica = self.holder(job)
        if replica is not None:
            replica.pace.served(0, max(0, output_tokens - job.tokens))
            if job.first_token_at is not None:
                replica.pace.answered(job.first_token_at, now, output_tokens)
            if cached_tokens is not None:
                replica.learn_cached(job, cached_tokens)
        return self.price(job, output_tokens, cached_tokens)

    def price(self, job: Job, output_tokens: int, cached_tokens: int | None = None) -> float:
        """What a sent job has cost with so many tokens."""
        cached = job.cached if cached_tokens is None else cached_tokens
        prompt = job.ticket.prompt_tokens - cached
        return self._prices.cost(prompt, output_tokens) if self._prices else 0.0
