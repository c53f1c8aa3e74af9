"""Whatever happens in whatever order: nothing lost, nothing twice, nothing too much.

A random walk over everything that a caller may do, beside a plain model of what must be true.
At its end everything that waits is served, and the whole walk is repeated on a second scheduler
that must answer the same.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from toolkit.gateway.scheduling import ReplicaLoad, ReplicaSpec, Scheduler, Ticket
from toolkit.gateway.scheduling.prefixes import BLOCK
from toolkit.spec.gateway import Scheduling

MODELS = ("m", "n")
CLASSES = {
    "quick": {"weight": 8, "ttft_ms": 500, "max_wait": "20s"},
    "batch": {"weight": 1, "ttft_ms": 20000, "max_running": 3},
    "plain": {"weight": 2, "max_queued": 12},
}
KV = 640


def section(policy: str) -> Scheduling:
    return Scheduling.model_validate(
        {"policy": policy, "starvation_after": "10s", "classes": CLASSES}
    )


class Walk(RuleBasedStateMachine):
    """The model: who waits, who runs where, and what is known of each."""

    policy = "latency_aware"

    @initialize(slots=st.lists(st.integers(1, 6), min_size=1, max_size=3))
    def begin(self, slots: list[int]) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = []
        self.scheduler = Scheduler.of(section(self.policy))
        self.specs: dict[str, ReplicaSpec] = {}
        self.up: set[str] = set()
        self.tickets: dict[str, Ticket] = {}
        self.waiting: set[str] = set()
        self.running: dict[str, str] = {}
        self.shunned: dict[str, set[str]] = {}
        self.tokens: Counter[str] = Counter()
        self.late: set[str] = set()
        self.serial = 0
        for count in slots:
            self.add(count, "m")

    def call(self, name: str, *args: Any, **named: Any) -> Any:
        answer = getattr(self.scheduler, name)(*args, **named)
        self.calls.append((name, args, named, answer))
        return answer

    # What may happen

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.3, 2.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(slots=st.integers(1, 4), model=st.sampled_from(MODELS))
    def add(self, slots: int, model: str) -> None:
        if len(self.specs) >= 5:
            return
        self.serial += 1
        spec = ReplicaSpec(f"r{self.serial}", model, slots=slots, kv_tokens=KV)
        self.call("add_replica", spec, self.now)
        self.specs[spec.id] = spec
        self.up.add(spec.id)

    @rule(
        kind=st.sampled_from(sorted(CLASSES)),
        model=st.sampled_from(("m", "m", "n")),
        prompt=st.integers(1, 60) | st.integers(1, 400),
        most=st.integers(1, 60) | st.integers(1, 300),
        talk=st.integers(0, 2),
        deadline=st.none() | st.none() | st.floats(-1, 30),
        count=st.integers(1, 5),
        at_once=st.booleans(),
    )
    def submit(self, count: int, at_once: bool, **what: Any) -> None:
        for _ in range(count):
            self.submit_one(**what)
        if at_once:
            self.dispatch()

    def submit_one(
        self, kind: str, model: str, prompt: int, most: int, talk: int, deadline: float | None
    ) -> None:
        self.serial += 1
        ticket = Ticket(
            id=f"t{self.serial}",
            model=model,
            request_class=kind,
            prompt_tokens=prompt,
            max_tokens=most,
            prefix=tuple(hash((talk, k)) for k in range(prompt // BLOCK)),
            arrived=self.now,
            deadline=None if deadline is None else self.now + deadline,
        )
        refusal = self.call("submit", ticket, self.now)
        servers = {r for r in self.up if self.specs[r].model == model}
        if not servers:
            assert refusal.reason == "no_replica"
        elif prompt + most > KV:
            assert refusal.reason == "too_large"
        if refusal is None:
            self.tickets[ticket.id] = ticket
            self.shunned[ticket.id] = set()
            self.waiting.add(ticket.id)

    @rule()
    def dispatch(self) -> None:
        before = {r: self.room_in_kv(r) for r in self.specs}
        for sent in self.call("dispatch", self.now):
            ticket = self.tickets[sent.ticket]
            assert sent.ticket in self.waiting
            assert sent.replica in self.up
            assert self.specs[sent.replica].model == ticket.model
            assert sent.replica not in self.shunned[sent.ticket]
            assert not self.is_late(sent.ticket)
            before[sent.replica] -= ticket.prompt_tokens + ticket.max_tokens
            assert before[sent.replica] >= 0
            self.waiting.discard(sent.ticket)
            self.running[sent.ticket] = sent.replica

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.integers(1, 40))
    def progress(self, data: st.DataObject, tokens: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        if not self.tokens[name]:
            self.call("first_token", name, self.now)
        tokens = min(tokens, self.tickets[name].max_tokens - self.tokens[name])
        self.call("progress", name, tokens, self.now)
        self.tokens[name] += tokens

    @precondition(lambda self: self.running)
    @rule(data=st.data(), more=st.integers(1, 40), cached=st.none() | st.integers(0, 400))
    def finish(self, data: st.DataObject, more: int, cached: int | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.running)))
        self.end(name, more, cached)

    def end(self, name: str, more: int = 1, cached: int | None = 0) -> None:
        ticket = self.tickets[name]
        total = min(self.tokens[name] + more, ticket.max_tokens)
        if cached is not None:
            cached = min(cached, ticket.prompt_tokens - 1)
        self.call("finish", name, output_tokens=total, cached_tokens=cached, now=self.now)
        self.forget(name)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), twice=st.booleans())
    def withdraw(self, data: st.DataObject, twice: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.tickets)))
        for _ in range(1 + twice):
            self.call("withdraw", name, self.now)
        self.forget(name)

    @rule()
    def overdue(self) -> None:
        told = self.call("overdue", self.now)
        assert {one.ticket for one in told} <= set(self.tickets)
        for one in told:
            assert one.running == (one.ticket in self.running)
            down = not any(self.specs[r].model == self.tickets[one.ticket].model for r in self.up)
            assert self.is_late(one.ticket) or down or one.ticket in self.late
            self.waiting.discard(one.ticket)
        expected = {name for name in self.tickets if self.is_late(name)}
        assert expected <= {one.ticket for one in told}
        self.late = {one.ticket for one in told}
        queued = self.scheduler.snapshot(self.now).queued
        assert sum(queued.values()) == len(self.waiting)

    @precondition(lambda self: self.specs)
    @rule(
        data=st.data(),
        how=st.sampled_from(["eject", "eject", "remove_replica"]),
        recovers=st.booleans(),
    )
    def fails(self, data: st.DataObject, how: str, recovers: bool) -> None:
        replica = data.draw(st.sampled_from(sorted(self.specs)))
        had = self.call(how, replica, self.now)
        assert set(had) == {name for name, where in self.running.items() if where == replica}
        self.up.discard(replica)
        if how == "remove_replica":
            del self.specs[replica]
        for name in had:
            if self.tokens[name]:
                with pytest.raises(ValueError, match="produced"):
                    self.scheduler.requeue(name, self.now)
                self.call("withdraw", name, self.now)
                self.forget(name)
                continue
            refusal = self.call("requeue", name, self.now)
            self.shunned[name].add(replica)
            del self.running[name]
            if refusal is None:
                self.waiting.add(name)
            else:
                self.forget(name)
        if recovers and replica in self.specs:
            self.call("readmit", replica, self.now)
            self.up.add(replica)
            self.dispatch()

    @precondition(lambda self: set(self.specs) - self.up)
    @rule(data=st.data())
    def readmit(self, data: st.DataObject) -> None:
        replica = data.draw(st.sampled_from(sorted(set(self.specs) - self.up)))
        self.call("readmit", replica, self.now)
        self.up.add(replica)

    @precondition(lambda self: self.specs)
    @rule(data=st.data(), running=st.integers(0, 6), waiting=st.integers(0, 2))
    def observe(self, data: st.DataObject, running: int, waiting: int) -> None:
        replica = data.draw(st.sampled_from(sorted(self.specs)))
        self.call("observe", replica, ReplicaLoad(running, waiting, 0.5), self.now)

    # What must be true

    def forget(self, name: str) -> None:
        self.tickets.pop(name, None)
        self.waiting.discard(name)
        self.running.pop(name, None)
        self.late.discard(name)

    def room_in_kv(self, replica: str) -> int:
        mine = (self.tickets[name] for name, where in self.running.items() if where == replica)
        return KV - sum(ticket.prompt_tokens + ticket.max_tokens for ticket in mine)

    def is_late(self, name: str) -> bool:
        ticket = self.tickets[name]
        waited_out = (
            name not in self.running
            and ticket.request_class == "quick"
            and self.now >= ticket.arrived + 20
        )
        return waited_out or (ticket.deadline is not None and self.now >= ticket.deadline)

    @invariant()
    def engines_are_not_overfull(self) -> None:
        if not hasattr(self, "specs"):
            return
        held = Counter(self.running.values())
        for replica, spec in self.specs.items():
            assert held[replica] <= spec.slots + 1
            assert self.room_in_kv(replica) >= 0
        batch = [name for name in self.running if self.tickets[name].request_class == "batch"]
        assert len(batch) <= 3

    @invariant()
    def the_snapshot_is_true(self) -> None:
        if not hasattr(self, "specs"):
            return
        snapshot = self.scheduler.snapshot(self.now)
        held = Counter(self.running.values())
        for replica in snapshot.replicas:
            assert sum(replica.running.values()) == held[replica.id]
            assert replica.kv_reserved <= KV
            assert replica.outstanding_tokens >= 0
            assert replica.up == (replica.id in self.up)
        # Some of those that wait here may have been found late already; see `overdue`.
        assert sum(snapshot.queued.values()) <= len(self.waiting)

    def teardown(self) -> None:
        if not hasattr(self, "specs"):
            return
        self.serve_everybody()
        self.repeat()

    def serve_everybody(self) -> None:
        """With engines that work, everybody is served or found late: nobody is lost."""
        for model in MODELS:
            for _ in range(2):
                self.serial += 1
                spec = ReplicaSpec(f"r{self.serial}", model, slots=2, kv_tokens=KV)
                self.call("add_replica", spec, self.now)
                self.specs[spec.id] = spec
                self.up.add(spec.id)
        for _ in range(len(self.tickets) + 1):
            self.dispatch()
            for one in self.call("overdue", self.now):
                self.call("withdraw", one.ticket, self.now)
                self.forget(one.ticket)
            for name in sorted(self.running):
                self.end(name)
            self.now += 0.1
        assert not self.tickets
        left = self.scheduler.snapshot(self.now)
        assert not sum(left.queued.values())
        assert all(not r.kv_reserved and not r.outstanding_tokens for r in left.replicas)
        # And the queue is as long as ever: what left it was taken out once.
        told = [
            self.call("submit", Ticket(f"x{k}", "m", "plain", 1, 1, (), self.now), self.now)
            for k in range(13)
        ]
        assert [one is None for one in told] == [True] * 12 + [False]

    def repeat(self) -> None:
        """The same calls to a new scheduler get the same answers."""
        again = Scheduler.of(section(self.policy))
        for name, args, named, answer in self.calls:
            assert getattr(again, name)(*args, **named) == answer


class ArrivalWalk(Walk):
    policy = "fcfs"


for machine in (Walk, ArrivalWalk):
    machine.TestCase.settings = settings(
        max_examples=60,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
TestLatencyAware = Walk.TestCase
TestOrderOfArrival = ArrivalWalk.TestCase
