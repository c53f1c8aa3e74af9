"""An engine's pace is measured when it is pressed, and only then."""

from __future__ import annotations

import random

import pytest

from toolkit.gateway.scheduling.pace import Line, Pace, Prices
from toolkit.gateway.scheduling.tickets import ReplicaSpec


def pace() -> Pace:
    spec = ReplicaSpec(
        "a", "m", slots=16, kv_tokens=0, prefill_tokens_per_s=1000, decode_tokens_per_s=100
    )
    return Pace.of(spec, Prices.of(spec))


def serve(made: Pace, *, per_s: float, seconds: float, pressed: bool, start: float = 0.0) -> None:
    now = start
    while now < start + seconds:
        now += 1 / per_s
        made.served(100, 10)  # 0.2 engine-seconds
        made.ended(now, pressed=pressed)


def test_the_expected_speed_holds_until_one_is_measured() -> None:
    made = pace()
    assert made.speed_now() == pytest.approx(1.0)
    serve(made, per_s=50, seconds=20, pressed=True)
    assert made.speed_now() == pytest.approx(10.0, rel=0.02)
    assert made.ends_per_s.value == pytest.approx(50, rel=0.02)
    assert made.tokens_per_s.value == pytest.approx(500, rel=0.02)


def test_an_idle_engine_is_not_taken_for_a_slow_one() -> None:
    made = pace()
    serve(made, per_s=50, seconds=20, pressed=True)
    serve(made, per_s=1, seconds=60, pressed=False, start=20)
    assert made.speed_now() == pytest.approx(10.0, rel=0.02)


def test_the_second_replica_s_expectation_is_in_the_first_one_s_prices() -> None:
    first = ReplicaSpec("a", "m", 8, 0, prefill_tokens_per_s=1000, decode_tokens_per_s=100)
    second = ReplicaSpec("b", "m", 8, 0, prefill_tokens_per_s=9000, decode_tokens_per_s=300)
    assert Pace.of(second, Prices.of(first)).speed_now() == pytest.approx(3.0)


def test_short_answers_are_sent_ahead_and_long_ones_are_not() -> None:
    short, long = pace(), pace()
    for made, ends in ((short, 100), (long, 2)):
        for k in range(50):
            made.answered(k, k + 0.6, 31)
        serve(made, per_s=ends, seconds=30, pressed=True)
    assert short.look_ahead(16) == 2
    assert short.look_ahead(64) == 3
    assert long.look_ahead(16) == 0


def test_a_line_is_found_through_noise() -> None:
    line, source = Line(), random.Random(1)
    for _ in range(500):
        x = source.uniform(0, 1000)
        line.add(x, 0.05 + 0.001 * x + source.gauss(0, 0.02))
    assert line.slope == pytest.approx(0.001, rel=0.1)
    assert line.at(2000) == pytest.approx(2.05, rel=0.1)


def test_a_line_through_one_place_has_its_height() -> None:
    line = Line()
    for _ in range(20):
        line.add(100, 0.3)
    assert line.slope == 0
    assert line.at(5000) == pytest.approx(0.3)
