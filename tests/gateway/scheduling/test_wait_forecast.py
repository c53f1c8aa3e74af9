"""The wait is foretold from what the others leave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.gateway.scheduling.capacity import Capacity
from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.classqueue import ClassQueue
from toolkit.gateway.scheduling.rates import FadingRate
from toolkit.gateway.scheduling.replica import Job
from toolkit.gateway.scheduling.tickets import Ticket
from toolkit.gateway.scheduling.waits import Waits

TEN = Capacity(slots=10, speed=10.0, ends_per_s=10.0, known=True)


def classes(**weights: float) -> dict[str, ClassPolicy]:
    return {n: ClassPolicy(n, w, None, None, 1000, None) for n, w in weights.items()}


def job(name: str, kind: str, cost_s: float) -> Job:
    return Job(Ticket(name, "m", kind, 1, 1, (), 0.0), cost_s=cost_s)


def test_the_patient_class_gets_what_the_other_leaves_whether_that_waits_just_now_or_not() -> None:
    known = classes(quick=8, batch=1)
    waits = Waits(known)
    queues = {name: ClassQueue(policy) for name, policy in known.items()}
    for k in range(400):  # four engine-seconds a second of ten
        waits.arrives(job(str(k), "quick", 0.4), k / 10)
    for k in range(120):
        queues["batch"].push(job(f"b{k}", "batch", 1.0))
    alone = waits.fair("batch", queues, TEN, 40.0)
    queues["quick"].push(job("q", "quick", 0.4))
    assert alone == pytest.approx(120 / 6 + 0.1, rel=0.1)
    assert waits.fair("batch", queues, TEN, 40.0) == pytest.approx(alone, rel=0.05)
    assert waits.fair("quick", queues, TEN, 40.0) < 0.2
    assert waits.arrival(queues, TEN) == pytest.approx(12.04 + 0.1)


@given(
    weights=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    wants=st.lists(st.floats(0, 3), min_size=5, max_size=5),
)
def test_what_is_left_is_between_the_fair_part_and_everything(
    weights: list[int], wants: list[float]
) -> None:
    known = {str(k): float(w) for k, w in enumerate(weights)}
    others = {str(k): wants[k] for k in range(1, len(weights))}
    left = Waits(classes(**known))._left_for("0", dict(others))
    assert weights[0] / sum(weights) - 1e-9 <= left <= 1.0
    assert left >= 1.0 - sum(others.values()) - 1e-9


def test_experience_corrects_the_forecast() -> None:
    waits = Waits(classes(a=1))
    for k in range(50):
        one = job(str(k), "a", 1.0)
        one.foreseen_s = 4.0
        waits.came_true(one, 6.0)
    assert waits.corrected("a", 10.0) == pytest.approx(15.0)
    assert waits.corrected("a", 0.0) == 0.0


def test_a_rate_is_believed_from_its_beginning_and_fades_afterwards() -> None:
    rate = FadingRate()
    assert rate.per_s(5.0) == 0.0
    for k in range(50):
        rate.note(100 + k / 10)
    assert rate.per_s(105.0) == pytest.approx(10, rel=0.1)
    assert rate.per_s(205.0) < 0.1
