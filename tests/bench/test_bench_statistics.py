"""Intervals: against published values, and against how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.bench.statistics import Sample, over_repeats, t_factor, t_quantile


@pytest.mark.parametrize(
    ("degrees", "published"),
    # Two-sided 95% points of Student's t, NIST/SEMATECH e-Handbook, 1.3.6.7.2.
    [(1, 12.706), (2, 4.303), (9, 2.262), (20, 2.086), (21, 2.080), (30, 2.042), (100, 1.984)],
)
def test_t_factor_is_the_published_one(degrees: int, published: float) -> None:
    assert t_factor(degrees) == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize(
    ("probability", "degrees", "published"),
    # One-sided points of Student's t, NIST/SEMATECH e-Handbook, 1.3.6.7.2.
    [
        (0.90, 1, 3.078),
        (0.99, 1, 31.821),
        (0.99, 4, 3.747),
        (0.999, 5, 5.893),
        (0.99, 8, 2.896),
        (0.95, 30, 1.697),
    ],
)
def test_quantiles_of_t_are_the_published_ones(
    probability: float, degrees: int, published: float
) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(published, abs=6e-4)
    assert t_quantile(1 - probability, degrees) == pytest.approx(-published, abs=6e-4)


def test_impossible_quantiles_are_refused() -> None:
    for probability, degrees in ((0.0, 3), (1.0, 3), (0.5, 0)):
        with pytest.raises(ValueError, match="no quantile"):
            t_quantile(probability, degrees)


def test_the_interval_of_repeats() -> None:
    found = over_repeats([10.0, 12.0, 14.0])
    assert found
    half = 4.302653 * 2 / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(12 - half), pytest.approx(12 + half))


def test_one_repeat_has_no_interval() -> None:
    assert over_repeats([3.0]) is None


def test_percentiles_lie_between_ranks() -> None:
    sample = Sample([4.0, 1.0, 3.0, 2.0], [0, 1, 2, 3])
    assert sample.percentile(0) == 1.0
    assert sample.percentile(50) == 2.5
    assert sample.percentile(100) == 4.0


def test_few_requests_give_no_bootstrap_interval() -> None:
    values = list(range(900))
    sample = Sample([float(value) for value in values], [value // 100 for value in values])
    assert set(sample.bootstrap([50]).values()) == {None}


def test_bootstrap_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(7)
    held = 0
    for trial in range(100):
        values = generator.exponential(size=120)
        found = Sample(list(values), list(range(120))).bootstrap([50], seed=trial)["p50"]
        assert found
        held += found.low <= math.log(2) <= found.high
    assert 86 <= held <= 100


def test_values_of_one_request_count_as_one_observation() -> None:
    generator = np.random.default_rng(3)
    means = generator.normal(size=30)
    values = [float(mean) for mean in means for _ in range(50)]
    owners = [owner for owner in range(30) for _ in range(50)]
    together = Sample(values, owners).bootstrap([50])["mean"]
    apart = Sample(values, list(range(1500))).bootstrap([50])["mean"]
    assert together
    assert apart
    assert together.high - together.low > 4 * (apart.high - apart.low)
