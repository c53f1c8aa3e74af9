"""Bounds: how long anything waits, how much memory anything takes."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from toolkit.gateway.scheduling import ReplicaSpec, Scheduler, Ticket
from toolkit.spec.gateway import Scheduling

CLASSES = {"quick": {"weight": 8, "ttft_ms": 500}, "batch": {"weight": 1}}


class Stream:
    """Engines that keep each request for a second, and a caller who never lets them rest."""

    def __init__(self, *, slots: int, kv_tokens: int, replicas: int = 1, **section: object) -> None:
        fields = {"classes": CLASSES, "starvation_after": "5s"} | section
        self.made = Scheduler.of(Scheduling.model_validate(fields))
        for k in range(replicas):
            self.made.add_replica(ReplicaSpec(f"r{k}", "m", slots, kv_tokens), 0.0)
        self.now, self.serial = 0.0, 0
        self.ends: list[tuple[float, str]] = []
        self.sent_at: dict[str, float] = {}

    def submit(self, name: str, kind: str = "quick", tokens: int = 64) -> None:
        ticket = Ticket(name, "m", kind, tokens // 2, tokens // 2, (), self.now)
        assert self.made.submit(ticket, self.now) is None

    def run(self, seconds: float, refill: Callable[[], None]) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.05
            while self.ends and self.ends[0][0] <= self.now:
                name = self.ends.pop(0)[1]
                self.made.finish(name, output_tokens=20, cached_tokens=0, now=self.now)
            refill()
            for sent in self.made.dispatch(self.now):
                self.sent_at[sent.ticket] = self.now
                self.made.first_token(sent.ticket, self.now)
                self.ends.append((self.now + 1.0, sent.ticket))

    def refill(self, kind: str = "quick", tokens: int = 64) -> None:
        """Always a few more than fit."""
        while self.made.snapshot(self.now).queued[kind] < 12:
            self.serial += 1
            self.submit(f"{kind}{self.serial}", kind, tokens)


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_request_that_needs_nearly_the_whole_cache_gets_it(replicas: int) -> None:
    stream = Stream(slots=8, kv_tokens=512, replicas=replicas)
    stream.run(5.0, stream.refill)
    stream.submit("large", tokens=480)
    begin = stream.now
    stream.run(20.0, stream.refill)
    # It is passed for `starvation_after`; then one engine's requests end, and it is its turn.
    assert stream.sent_at["large"] <= begin + 5.0 + 1.0 + 0.2


def test_a_batch_request_is_served_although_interactive_ones_never_end() -> None:
    stream = Stream(slots=4, kv_tokens=0)
    stream.run(5.0, stream.refill)
    for k in range(20):
        stream.submit(f"b{k}", "batch")
    begin = stream.now
    stream.run(60.0, stream.refill)
    waits = [stream.sent_at[f"b{k}"] - begin for k in range(20)]
    assert waits == sorted(waits)
    assert waits[0] <= 5.2
    # A quarter of the work, of not quite four requests a second; batch ones are expected to be
    # the longer until the first has ended.
    assert waits[-1] <= 5.2 + 20 / 0.75 + 1.0


def test_without_others_batch_takes_everything() -> None:
    stream = Stream(slots=4, kv_tokens=0)
    stream.run(10.0, lambda: stream.refill("batch"))
    assert stream.made.snapshot(stream.now).running == {"batch": 4}


def test_memory_does_not_grow_with_the_requests_served() -> None:
    stream = Stream(slots=8, kv_tokens=2048, classes=CLASSES | {"batch": {"max_wait": "3600s"}})
    sizes = []
    for _ in range(4):
        stream.run(25.0, lambda: (stream.refill("batch"), stream.refill("quick"))[0])
        sizes.append(len(pickle.dumps(stream.made)))
    assert stream.serial > 700
    assert max(sizes[1:]) < 1.3 * sizes[0]


def test_long_prompts_of_patient_requests_do_not_pile_up_before_a_hurried_one() -> None:
    stream = Stream(slots=16, kv_tokens=0)
    made = stream.made
    for k in range(30):  # a thousand prompt tokens take a tenth of a second
        stream.submit(f"w{k}", "quick", tokens=400 + 20 * (k % 10))
        made.dispatch(stream.now)
        made.first_token(f"w{k}", stream.now + (200 + 10 * (k % 10)) * 1e-4)
        made.finish(f"w{k}", output_tokens=5, cached_tokens=0, now=stream.now + 0.5)
        stream.now += 0.5
    for k in range(10):
        made.submit(Ticket(f"b{k}", "m", "batch", 1000, 50, (), stream.now), stream.now)
    # Half of 500 ms holds two prompts; the others follow as they are read.
    assert [sent.ticket for sent in made.dispatch(stream.now)] == ["b0", "b1"]
    made.first_token("b0", stream.now + 0.1)
    assert [sent.ticket for sent in made.dispatch(stream.now + 0.1)] == ["b2"]
    stream.now += 300.0  # nobody hurried comes any more
    assert len(made.dispatch(stream.now)) == 7


def test_a_failed_request_keeps_its_place() -> None:
    stream = Stream(slots=1, kv_tokens=0, replicas=2)
    for name in ("first", "second"):
        stream.submit(name, "batch")
        stream.now += 0.1
    sent = {one.ticket: one.replica for one in stream.made.dispatch(stream.now)}
    for k in range(5):
        stream.submit(f"later{k}", "batch")
    stream.made.eject(sent["first"], stream.now)
    assert stream.made.requeue("first", stream.now) is None
    stream.made.finish("second", output_tokens=5, cached_tokens=0, now=stream.now + 1)
    (again,) = stream.made.dispatch(stream.now + 1)
    assert again.ticket == "first"
