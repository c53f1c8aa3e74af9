"""Slots are kept for urgent classes, and the loss is bounded."""

from __future__ import annotations

import random

import pytest

from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.reserve import IDLE_SHARE, Reserve


def reserve() -> Reserve:
    return Reserve(
        {
            "quick": ClassPolicy("quick", 8, 0.5, None, 100, None),
            "batch": ClassPolicy("batch", 1, 20.0, None, 100, None),
            "any": ClassPolicy("any", 1, None, None, 100, None),
        }
    )


def active(made: Reserve, per_s: float, seconds: float) -> float:
    now = 0.0
    while now < seconds:
        now += 1 / per_s
        made.pass_time(16, now)
        made.arrives("quick", now)
    return now


def test_slots_are_kept_from_the_patient_while_the_hurried_come() -> None:
    made = reserve()
    now = active(made, per_s=4, seconds=60)
    assert made.wanted("batch", ends_per_s=0.5, start_s=0.1, now=now) == 3
    assert made.wanted("any", ends_per_s=0.5, start_s=0.1, now=now) >= 3
    assert made.wanted("quick", ends_per_s=0.5, start_s=0.1, now=now) == 0
    assert made.wanted("batch", 0.5, 0.1, now, waiting=["quick", "batch"]) == 0


def test_slots_that_come_free_anyway_need_not_be_kept() -> None:
    made = reserve()
    now = active(made, per_s=4, seconds=60)
    assert made.wanted("batch", ends_per_s=20, start_s=0.1, now=now) == 0


def test_nothing_is_kept_for_those_who_do_not_come() -> None:
    made = reserve()
    assert made.wanted("batch", ends_per_s=0.5, start_s=0.1, now=60.0) == 0
    now = active(made, per_s=4, seconds=60) + 300
    made.pass_time(16, now)
    assert made.wanted("batch", ends_per_s=0.5, start_s=0.1, now=now) == 0


def test_idle_slots_never_cost_more_than_their_share() -> None:
    made, source = reserve(), random.Random(1)
    now = active(made, per_s=4, seconds=60)
    begin, idle_s, held = now, 0.0, 0
    saved = IDLE_SHARE * 16 * 20.0
    for _ in range(5000):
        step = source.expovariate(20)
        empty = made.spent_at(16, now)
        step = step if empty is None else min(step, max(empty - now, 1e-6))
        idle_s, now = idle_s + held * step, now + step
        made.pass_time(16, now)
        if source.random() < 0.2:
            made.arrives("quick", now)
        held = min(2, made.wanted("batch", 0.5, 0.1, now))
        made.idles(held, now)
    assert 0 < idle_s <= saved + IDLE_SHARE * 16 * (now - begin) + 0.1
    assert idle_s > 0.9 * IDLE_SHARE * 16 * (now - begin)


def test_the_tightest_target_counts_only_while_its_class_is_active() -> None:
    made = reserve()
    assert made.tightest("batch", 1.0) == float("inf")
    made.arrives("quick", 1.0)
    assert made.tightest("batch", 1.5) == pytest.approx(0.5)
    assert made.tightest("quick", 1.5) == float("inf")
    assert made.tightest("batch", 200.0) == float("inf")
