"""Answers' lengths are learned, and those that were cut are not mistaken for whole ones."""

from __future__ import annotations

import random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.gateway.scheduling.lengths import LengthModel


def lengths(count: int, seed: int = 1) -> list[int]:
    source = random.Random(seed)
    return [max(1, round(source.lognormvariate(5, 0.7))) for _ in range(count)]


@pytest.mark.parametrize("limit", [16, 64, 200, 4000])
def test_the_mean_under_a_limit_is_learned_although_most_answers_were_cut(limit: int) -> None:
    learned, source = LengthModel(), random.Random(2)
    for length in lengths(3000):
        cut = source.choice([40, 120, 4000])
        learned.observe(min(length, cut), cut=length >= cut)
    truth = mean(min(length, limit) for length in lengths(20000, seed=3))
    assert learned.mean(limit) == pytest.approx(truth, rel=0.12)


def test_what_is_left_of_a_long_answer_is_more_than_the_mean_says() -> None:
    learned = LengthModel()
    for length in lengths(3000):
        learned.observe(length, cut=False)
    beyond = [length - 300 for length in lengths(20000, seed=3) if length > 300]
    assert learned.mean(4000, done=300) == pytest.approx(mean(beyond), rel=0.35)
    assert learned.mean(4000, done=300) > learned.mean(4000) - 300


def test_answers_that_were_all_cut_are_expected_to_be_cut_again() -> None:
    learned = LengthModel()
    for _ in range(100):
        learned.observe(100, cut=True)
    assert learned.mean(100) == pytest.approx(100, rel=0.02)
    assert learned.mean(1000) > 200


def test_a_change_of_habit_is_followed() -> None:
    learned = LengthModel()
    for _ in range(2000):
        learned.observe(1000, cut=False)
    for _ in range(2000):
        learned.observe(50, cut=False)
    assert learned.mean(4000) < 100


def test_a_quantile_is_that_share_s_length() -> None:
    learned = LengthModel()
    for length in lengths(3000):
        learned.observe(length, cut=False)
    truth = sorted(lengths(20000, seed=3))[18000]
    assert truth * 0.8 < learned.quantile(0.9, 100_000) < truth * 1.35
    assert learned.quantile(0.9, 64) == 64


@given(
    seen=st.lists(st.tuples(st.integers(0, 10**7), st.booleans()), max_size=40),
    limit=st.integers(0, 10**7),
    done=st.integers(0, 10**7),
)
def test_an_expectation_never_leaves_what_is_possible(
    seen: list[tuple[int, bool]], limit: int, done: int
) -> None:
    learned = LengthModel()
    for tokens, cut in seen:
        learned.observe(tokens, cut=cut)
    assert 0 <= learned.mean(limit, done) <= max(0, limit - done)
