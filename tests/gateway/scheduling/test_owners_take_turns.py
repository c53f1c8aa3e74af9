"""Within a class the owners of requests take turns, however much one of them asks for."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.gateway.scheduling import ReplicaSpec, Scheduler, Ticket
from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.classqueue import ClassQueue
from toolkit.gateway.scheduling.order import ArrivalOrder, FairOrder
from toolkit.gateway.scheduling.replica import Job
from toolkit.spec.gateway import Scheduling

POLICY = ClassPolicy("c", 1.0, None, None, 10**6, None)


def job(name: str, owner: str, cost_s: float = 1.0, arrived: float = 0.0) -> Job:
    return Job(Ticket(name, "m", "c", 64, 64, (), arrived, owner=owner), cost_s=cost_s)


def order(after: float = 30.0) -> FairOrder:
    return FairOrder({"c": POLICY}, after)


def take(made: FairOrder, now: float = 0.0) -> Job:
    first = next(made.candidates(now, lambda name: True))
    made.sent(first, now)
    made.discard(first)
    return first


def test_a_late_key_with_one_request_is_next_but_for_one() -> None:
    made = order()
    for n in range(1000):
        made.push(job(f"g{n}", "greedy"), 0.0)
    for _ in range(100):
        assert take(made).ticket.owner == "greedy"
    made.push(job("m", "modest"), 0.0)
    assert "m" in [take(made).ticket.id for _ in range(2)]


def test_nobody_is_starved_by_another_key_whose_requests_have_waited_long() -> None:
    made = order(after=5.0)
    for n in range(100):
        made.push(job(f"g{n}", "greedy"), 0.0)
    take(made)
    made.push(job("m", "modest", arrived=50.0), 0.0)
    assert "m" in [take(made, 50.0).ticket.id for _ in range(2)]


@settings(max_examples=25, deadline=None)
@given(costs=st.lists(st.floats(0.1, 5.0), min_size=2, max_size=5))
def test_work_not_requests_is_shared(costs: list[float]) -> None:
    made, work = order(), Counter[str]()
    for k, cost in enumerate(costs):
        for n in range(2):
            made.push(job(f"{k}/{n}", str(k), cost), 0.0)
    for turn in range(600):
        sent = take(made)
        work[sent.ticket.owner] += sent.cost_s  # type: ignore[assignment]
        made.push(job(f"again{turn}", sent.ticket.owner, sent.cost_s), 0.0)
    assert max(work.values()) - min(work.values()) <= 2 * max(costs) + 1e-6


def test_work_that_came_to_more_than_predicted_is_counted() -> None:
    made = order()
    for n in range(20):
        made.push(job(f"a{n}", "a"), 0.0)
        made.push(job(f"b{n}", "b"), 0.0)
    sent = take(made)
    made.settle(sent, 6.0)  # predicted: 1
    others = [take(made).ticket.owner for _ in range(5)]
    assert sent.ticket.owner not in others


def test_an_idle_key_saves_nothing_up() -> None:
    made = order()
    for n in range(200):
        made.push(job(f"a{n}", "a"), 0.0)
    made.push(job("b", "b"), 0.0)
    for _ in range(100):
        take(made)
    for n in range(50):
        made.push(job(f"b{n}", "b"), 0.0)
    owners = [take(made).ticket.owner for _ in range(10)]
    assert 4 <= owners.count("a") <= 6


def test_keys_that_have_left_are_forgotten() -> None:
    made = order()
    for n in range(1000):
        made.push(job(f"x{n}", "stays"), 0.0)
        made.push(job(f"y{n}", "stays"), 0.0)
        made.push(job(str(n), f"key{n}"), 0.0)
        take(made)
        take(made)
    queue = made.queues["c"]
    assert len(queue._clocks) < 200
    while len(queue):
        take(made)
    assert len(queue._clocks) == 0
    assert queue.cost_s == 0


def test_keys_that_have_left_are_forgotten_in_order_of_arrival_too() -> None:
    made = ArrivalOrder({"c": POLICY})
    made.push(job("x", "stays"), 0.0)
    for n in range(1000):
        one = job(str(n), f"key{n}")
        made.push(one, 0.0)
        made.discard(one)
    assert len(made.queues["c"]._clocks) < 100


def test_a_wait_is_foreseen_by_what_comes_before_its_own_key() -> None:
    queue = ClassQueue(POLICY)
    for n in range(100):
        queue.push(job(f"g{n}", "greedy"))
    for n in range(3):
        queue.push(job(f"m{n}", "modest", 2.0))
    assert queue.cost_before(None) == 106
    assert queue.cost_before("new") == 3  # one of each
    assert queue.cost_before("modest") == 13
    assert queue.cost_before("greedy") == 106
    assert (queue.jobs_before("new"), queue.jobs_before("modest")) == (2, 7)


def test_many_keys_with_one_request_each_come_before_a_new_one() -> None:
    made = order()
    for n in range(100):
        made.push(job(f"j{n}", f"key{n}"), 0.0)
    for left in range(99, 49, -1):
        take(made)
        assert made.queues["c"].cost_before("new") == left
    made.push(job("new", "new"), 0.0)
    assert "new" not in [take(made).ticket.id for _ in range(50)]
    assert take(made).ticket.id == "new"


def test_a_key_is_not_refused_for_anothers_queue() -> None:
    section = {"classes": {"c": {"weight": 1, "max_wait": "2s", "max_queued": 10_000}}}
    made = Scheduler.of(Scheduling.model_validate(section))
    made.add_replica(ReplicaSpec("r", "m", slots=2, kv_tokens=0), 0.0)
    now, running, serial = 0.0, [], 0

    def submit(owner: str) -> bool:
        nonlocal serial
        serial += 1
        ticket = Ticket(str(serial), "m", "c", 64, 64, (), now, owner=owner)
        return made.submit(ticket, now) is None

    refused = 0
    for _ in range(200):
        refused += sum(not submit("greedy") for _ in range(5))
        running += [sent.ticket for sent in made.dispatch(now)]
        now += 0.25
        for ticket in running:
            made.first_token(ticket, now)
            made.progress(ticket, 64, now)
            made.finish(ticket, output_tokens=64, cached_tokens=0, now=now)
        running = []
        for late in made.overdue(now):
            made.withdraw(late.ticket, now)
    assert refused > 100
    assert submit("modest")


def full_of_greedy(policy: str = "latency_aware") -> tuple[Scheduler, Callable[[str], bool]]:
    """A scheduler whose 20 places one key has taken, and who else may wait."""
    section = {"policy": policy, "classes": {"c": {"weight": 1, "max_queued": 20}}}
    made = Scheduler.of(Scheduling.model_validate(section))
    made.add_replica(ReplicaSpec("r", "m", slots=1, kv_tokens=0), 0.0)
    names = itertools.count()

    def submit(owner: str) -> bool:
        ticket = Ticket(str(next(names)), "m", "c", 64, 64, (), 0.0, owner=owner)
        return made.submit(ticket, 0.0) is None

    while submit("greedy"):
        pass
    return made, submit


def test_a_key_that_fills_the_queue_keeps_no_other_out() -> None:
    made, submit = full_of_greedy()
    assert sum(submit("modest") for _ in range(30)) == 10
    assert sum(submit("third") for _ in range(30)) == 7
    assert not submit("greedy")
    assert made.snapshot(0.0).queued["c"] == 37


def test_places_on_top_are_bounded() -> None:
    made, submit = full_of_greedy()
    assert sum(submit(f"key{n}") for n in range(100)) == 20
    assert made.snapshot(0.0).queued["c"] == 40


def test_in_order_of_arrival_a_full_queue_is_full_for_everybody() -> None:
    _, submit = full_of_greedy("fcfs")
    assert not submit("modest")


def test_whom_a_replica_is_kept_for_gets_it_though_other_keys_have_come_since() -> None:
    section = {"classes": {"c": {"weight": 1}}, "starvation_after": "5s"}
    made = Scheduler.of(Scheduling.model_validate(section))
    made.add_replica(ReplicaSpec("r", "m", slots=8, kv_tokens=1024), 0.0)

    def submit(name: str, owner: str, now: float, prompt: int = 64) -> None:
        assert made.submit(Ticket(name, "m", "c", prompt, 64, (), now, owner=owner), now) is None

    def go(now: float) -> list[str]:
        return [sent.ticket for sent in made.dispatch(now)]

    for owner in ("large", "other"):
        submit(f"{owner} before", owner, 0.0, 440)
    assert len(go(0.0)) == 2  # the engine is full, and both have had work
    for owner in ("large", "other"):
        submit(owner, owner, 0.1, 900)
    assert go(6.0) == []  # from now on the engine is kept for the one whose turn it is
    for n in range(6):
        submit(f"new{n}", f"key{n}", 6.1)
    for owner in ("large", "other"):
        made.first_token(f"{owner} before", 7.0)
        made.finish(f"{owner} before", output_tokens=64, cached_tokens=0, now=7.0)
    assert go(7.0) == ["large"]
