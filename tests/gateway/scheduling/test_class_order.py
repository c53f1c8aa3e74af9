"""Who goes next: shares between classes, size and age within one."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.order import LEAD_S, ArrivalOrder, FairOrder, Order
from toolkit.gateway.scheduling.replica import Job
from toolkit.gateway.scheduling.tickets import Ticket


def policy(name: str, weight: float = 1.0, ttft_s: float | None = None) -> ClassPolicy:
    return ClassPolicy(name, weight, ttft_s, None, 10**6, None)


def fair(*policies: ClassPolicy, after: float = 30.0) -> FairOrder:
    return FairOrder({p.name: p for p in policies}, after)


def job(name: str, kind: str, arrived: float, cost_s: float = 1.0) -> Job:
    return Job(Ticket(name, "m", kind, 100, 100, (), arrived), cost_s=cost_s)


def take(order: Order, now: float) -> Job:
    first = next(order.candidates(now, lambda name: True))
    order.sent(first, now)
    order.discard(first)
    return first


@settings(max_examples=25)
@given(
    weights=st.lists(st.integers(1, 20), min_size=2, max_size=4),
    costs=st.lists(st.floats(0.1, 5.0), min_size=4, max_size=4),
)
def test_under_saturation_work_is_shared_by_weight(weights: list[int], costs: list[float]) -> None:
    order = fair(*(policy(str(k), w) for k, w in enumerate(weights)), after=1e9)
    work: Counter[str] = Counter()
    for k in range(len(weights)):
        for n in range(3):
            order.push(job(f"{k}/{n}", str(k), 0.0, costs[k]), 0.0)
    for turn in range(800):
        sent = take(order, 0.0)
        kind = sent.ticket.request_class
        work[kind] += sent.cost_s
        order.push(job(f"{kind}/+{turn}", kind, 0.0, sent.cost_s), 0.0)
    total, weight = sum(work.values()), sum(weights)
    for k, own in enumerate(weights):
        # Start-time fair queueing is never off by more than the largest jobs.
        assert work[str(k)] == pytest.approx(
            total * own / weight, abs=2 * max(costs) * len(weights)
        )


def test_a_class_that_was_idle_has_saved_up_nothing() -> None:
    order = fair(policy("a"), policy("b"), after=1e9)
    for n in range(100):
        order.push(job(f"a{n}", "a", 0.0), 0.0)
    for _ in range(50):
        take(order, 0.0)
    for n in range(20):
        order.push(job(f"b{n}", "b", 0.0), 0.0)
    first = Counter(take(order, 0.0).ticket.request_class for _ in range(20))
    assert 9 <= first["b"] <= 11


def test_work_that_proves_longer_is_charged_later() -> None:
    order = fair(policy("a"), policy("b"), after=1e9)
    for n in range(40):
        order.push(job(f"a{n}", "a", 0.0), 0.0)
        order.push(job(f"b{n}", "b", 0.0), 0.0)
    sent: Counter[str] = Counter()
    for _ in range(30):
        one = take(order, 0.0)
        sent[one.ticket.request_class] += 1
        if one.ticket.request_class == "a":
            order.settle(one, 2.0)
    assert sent["b"] == pytest.approx(2 * sent["a"], abs=2)


def test_within_a_class_the_shorter_goes_first_if_it_came_soon_enough() -> None:
    order = fair(policy("a"))
    order.push(job("long", "a", 0.0), 10.0)
    order.push(job("short", "a", 4.0), 1.0)
    order.push(job("late", "a", 9.5), 1.0)
    assert [take(order, 10.0).ticket.id for _ in range(3)] == ["short", "long", "late"]


@given(stays=st.lists(st.floats(0, 100), min_size=2, max_size=60), after=st.floats(1, 20))
def test_whoever_has_waited_long_is_passed_by_nobody(stays: list[float], after: float) -> None:
    order = fair(policy("a"), after=after)
    order.push(job("first", "a", 0.0), 1000.0)
    now = 0.0
    for n, stay in enumerate(stays):
        now += 1.0
        order.push(job(str(n), "a", now), stay)
        sent = take(order, now)
        if sent.ticket.id == "first":
            assert now <= after + 1.0
            return
        assert now < after


def test_a_starved_request_goes_out_of_turn_but_such_exceptions_do_not_take_over() -> None:
    order = fair(policy("big", 1000), policy("small", 1), after=10.0)
    for n in range(300):
        order.push(job(f"s{n}", "small", 0.0), 0.0)
    now, sent = 20.0, Counter[str]()
    for n in range(200):
        order.push(job(f"b{n}", "big", now), 0.0)
        order.push(job(f"c{n}", "big", now), 0.0)
        one = take(order, now)
        if n == 0:
            assert one.ticket.id == "s0"
        sent[one.ticket.request_class] += 1
    assert sent["small"] == pytest.approx(50, abs=3)


def test_a_hurried_class_runs_ahead_of_its_share_by_a_bounded_amount() -> None:
    order = fair(policy("quick", ttft_s=0.5), policy("slow"), after=1e9)
    order.speed = 10.0
    for n in range(200):
        order.push(job(f"s{n}", "slow", 0.0, 0.5), 0.0)
        order.push(job(f"q{n}", "quick", 0.0, 0.5), 0.0)
    lead = 0
    while take(order, 1.0).ticket.request_class == "quick":
        lead += 1
    assert lead * 0.5 == pytest.approx(LEAD_S * order.speed / 2, abs=1.0)


def test_lateness_of_a_patient_class_does_not_hold_up_a_hurried_one() -> None:
    order = fair(policy("quick", 8, ttft_s=0.5), policy("patient", 1, ttft_s=20.0), after=1e9)
    order.speed = 8.0
    for n in range(500):
        order.push(job(f"p{n}", "patient", 0.0, 0.5), 0.0)
    now = 60.0
    for n in range(20):
        take(order, now)
        order.push(job(f"q{n}", "quick", now, 0.1), 0.0)
        now += 0.2
        passed = 0
        while take(order, now).ticket.request_class != "quick":
            passed += 1
        assert passed <= 1


def test_order_of_arrival_is_just_that() -> None:
    order = ArrivalOrder({"a": policy("a", 9), "b": policy("b", 1, 0.1)})
    for n, (kind, at) in enumerate([("a", 3.0), ("b", 1.0), ("a", 2.0), ("b", 0.5)]):
        order.push(job(str(n), kind, at), 5.0 - n)
    assert [take(order, 9.0).ticket.arrived for _ in range(4)] == [0.5, 1.0, 2.0, 3.0]


def test_a_class_that_may_not_run_is_left_out() -> None:
    for order in (fair(policy("a"), policy("b")), ArrivalOrder({n: policy(n) for n in "ab"})):
        order.push(job("1", "a", 0.0), 0.0)
        order.push(job("2", "b", 1.0), 0.0)
        found = order.candidates(1.0, lambda name: name == "b")
        assert [one.ticket.id for one in found] == ["2"]
