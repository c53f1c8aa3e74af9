"""One engine as the scheduler keeps it: what runs there, what still fits, what it remembers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from toolkit.gateway.scheduling.lengths import LengthModel
from toolkit.gateway.scheduling.pace import Average, Pace, Prices
from toolkit.gateway.scheduling.prefixes import BLOCK, PrefixIndex
from toolkit.gateway.scheduling.tickets import ReplicaLoad, ReplicaSpec, ReplicaState, Ticket

_METRICS_LIVE_S = 3.0
_CONGESTED_LOOKS = 3
_BLOCKS_UNKNOWN = 4096
_TRUST_FLOOR = 0.1
_LONG_ANSWER = 0.9


@dataclass(slots=True, eq=False)
class Job:
    """A ticket while the scheduler knows it: waiting (no replica) or with an engine.

    ``expected`` is the answer's predicted length, ``cost_s`` the predicted work in
    engine-seconds, ``rank`` its place within its class, ``foreseen_s`` the wait predicted for it.
    Once sent, ``matched`` prompt tokens should be in the cache and ``cached`` are counted on,
    ``kv`` tokens are reserved and ``left`` output tokens expected. ``expired``: it waited until
    its time was up and is in no queue.
    """

    ticket: Ticket
    expected: float = 0.0
    cost_s: float = 0.0
    rank: float = 0.0
    foreseen_s: float = 0.0
    replica: str | None = None
    shunned: frozenset[str] = frozenset()
    sent_at: float = 0.0
    matched: int = 0
    cached: int = 0
    kv: int = 0
    left: float = 0.0
    first_token_at: float | None = None
    tokens: int = 0
    expired: bool = False

    @property
    def uncached(self) -> int:
        """Prompt tokens that the engine has to compute, as predicted."""
        return self.ticket.prompt_tokens - self.cached

    def wait_again(self, failed: str | None) -> None:
        """Nothing came of sending it; ``failed`` is the replica that is not to have it again."""
        self.shunned |= {failed} if failed is not None else set()
        self.replica = self.first_token_at = None
        self.matched = self.cached = self.kv = 0
        self.left = self.foreseen_s = 0.0


class Replica:
    """Slots, KV tokens and prefixes of one engine, and the jobs that hold them."""

    def __init__(self, spec: ReplicaSpec, prices: Prices) -> None:
        self.spec = spec
        self.pace = Pace.of(spec, prices)
        self.up = True
        self.jobs: dict[str, Job] = {}
        self.running: Counter[str] = Counter()
        self.kv_reserved = 0
        self.outstanding = 0.0  # output tokens still expected
        self.unread = 0  # prompt tokens sent whose first token has not come
        self.load = ReplicaLoad()
        self.prefixes = PrefixIndex(spec.kv_tokens // BLOCK if spec.kv_tokens else _BLOCKS_UNKNOWN)
        self._trust = Average(memory=0.1)
        self._loaded_at = float("-inf")
        self._peak = self._peak_before = 0
        self._foreign = 0
        self._full_until = float("-inf")
        self._congested = 0  # looks in a row with more waiting in the engine than sent ahead

    def limit(self, now: float) -> int:
        """Requests of ours that it takes at once.

        The slots that other clients leave, and a few ahead. An engine whose own queue stays full
        admits no more for now (its KV cache is full, or others are quicker): what it runs is the
        limit until the metrics say otherwise or are too old. One look is not enough, for every
        request waits there for the next step.
        """
        slots = self.spec.slots
        ahead = self.pace.look_ahead(slots) if self.pace.ahead else 0
        if now - self._loaded_at <= _METRICS_LIVE_S:
            slots = max(1, slots - self._foreign)
            if self._congested >= _CONGESTED_LOOKS:
                slots = max(1, min(slots, int(self.load.running or 0) - self._foreign))
        return slots + ahead

    def room(self, now: float) -> int:
        """How many more requests it takes."""
        if not self.up or now < self._full_until:
            return 0
        return max(0, self.limit(now) - len(self.jobs))

    def full(self, until: float) -> None:
        """It has refused a request for want of place: it is left alone until then."""
        self._full_until = until

    def kv_need(self, ticket: Ticket, lengths: LengthModel) -> int:
        """KV tokens to keep free for a ticket, in whole blocks."""
        answer = ticket.max_tokens
        if not self.spec.guaranteed:
            answer = lengths.quantile(_LONG_ANSWER, answer)
        whole = -(-(ticket.prompt_tokens + answer) // BLOCK) * BLOCK
        return min(whole, self.spec.kv_tokens) if self.holds_at_all(ticket) else whole

    def holds_at_all(self, ticket: Ticket) -> bool:
        """Whether an empty engine could serve this ticket."""
        need = ticket.prompt_tokens + ticket.max_tokens
        return not self.spec.kv_tokens or need <= self.spec.kv_tokens

    def has_kv_for(self, need: int) -> bool:
        """Whether so many KV tokens are not promised yet."""
        return not self.spec.kv_tokens or self.kv_reserved + need <= self.spec.kv_tokens

    def cached_tokens(self, ticket: Ticket) -> int:
        """Prompt tokens expected to be in its cache; the last one is always computed."""
        return self._trusted(self._matched(ticket))

    def _matched(self, ticket: Ticket) -> int:
        held = self.prefixes.match(ticket.prefix) * BLOCK if ticket.prefix else 0
        return max(0, min(held, ticket.prompt_tokens - 1))

    def _trusted(self, matched: int) -> int:
        return int(matched * max(_TRUST_FLOOR, self._trust.known(1.0)))

    def load_s(self) -> float:
        """Seconds the engine needs for everything it has been given."""
        return self.pace.seconds(self.pace.prices.cost(self.unread, self.outstanding))

    def take(self, job: Job, need: int, now: float) -> None:
        """The job is sent here."""
        ticket = job.ticket
        job.replica, job.sent_at = self.spec.id, now
        job.matched = self._matched(ticket)
        job.cached = self._trusted(job.matched)
        job.kv, job.left = need, job.expected
        self.jobs[ticket.id] = job
        self.running[ticket.request_class] += 1
        self.kv_reserved += need
        self.outstanding += job.left
        self.unread += job.uncached
        self.prefixes.touch(ticket.prefix)
        self._peak = max(self._peak, len(self.jobs))

    def first_token(self, job: Job, now: float) -> None:
        """The prompt is computed."""
        if job.first_token_at is not None:
            return
        job.first_token_at = now
        self.unread -= job.uncached
        self.pace.served(job.uncached, 0)
        self.pace.start_s.add(job.uncached, now - job.sent_at)

    def progress(self, job: Job, tokens: int, lengths: LengthModel) -> None:
        """So many more tokens of the job have come."""
        job.tokens += tokens
        left = job.left - tokens
        if left < 1.0:
            left = lengths.mean(job.ticket.max_tokens, job.tokens)
        self.outstanding += left - job.left
        job.left = left
        self.pace.served(0, tokens)
        grown = job.ticket.prompt_tokens + job.tokens - job.kv
        if grown > 0:
            job.kv += grown
            self.kv_reserved += grown

    def drop(self, job: Job) -> None:
        """The job is no longer here."""
        del self.jobs[job.ticket.id]
        self.running[job.ticket.request_class] -= 1
        self.kv_reserved -= job.kv
        if job.first_token_at is None:
            self.unread -= job.uncached
        self.outstanding = self.outstanding - job.left if self.jobs else 0.0

    def learn_cached(self, job: Job, cached_tokens: int) -> None:
        """What was really in the cache, where something was expected."""
        if job.matched > 0:
            self._trust.add(min(1.0, cached_tokens / job.matched))

    def observe(self, load: ReplicaLoad, now: float) -> None:
        """Live metrics: what is more than we lately had here is other clients'.

        They may be as old as the last look, hence the most of two intervals.
        """
        self.load, self._loaded_at = load, now
        waiting = (load.waiting or 0.0) > self.pace.look_ahead(self.spec.slots)
        self._congested = self._congested + 1 if waiting and load.running is not None else 0
        total = (load.running or 0.0) + (load.waiting or 0.0)
        self._foreign = max(0, int(total) - max(self._peak, self._peak_before))
        self._peak, self._peak_before = len(self.jobs), self._peak

    def may_rise_at(self, now: float) -> float | None:
        """When the limit may rise because the metrics are too old, or it is asked again whether it
        has place; None if nothing binds."""
        if self.up and now < self._full_until:
            return self._full_until
        binding = self.limit(now) < self.spec.slots
        return self._loaded_at + _METRICS_LIVE_S if self.up and binding else None

    def eject(self) -> None:
        """It fails: nothing more goes there, and what it remembered is not to be relied on."""
        self.up = False
        self.prefixes.clear()

    def state(self, now: float) -> ReplicaState:
        """For a snapshot."""
        speed = self.pace.tokens_per_s
        return ReplicaState(
            id=self.spec.id,
            model=self.spec.model,
            up=self.up,
            slots=self.spec.slots,
            room=self.room(now),
            running={name: count for name, count in self.running.items() if count},
            outstanding_tokens=self.unread + round(self.outstanding),
            kv_tokens=self.spec.kv_tokens,
            kv_reserved=self.kv_reserved,
            tokens_per_s=speed.value if speed.count else None,
        )
