"""Quantiles of what a window added to a histogram."""

from __future__ import annotations

import bisect
import itertools
import json
import math
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.gateway.watch.histogram import Histogram

INF = math.inf
KEPT = Path(__file__).parents[3] / ".cache" / "tests" / "promtool" / "usr" / "bin" / "promtool"


def of(values: list[float], bounds: tuple[float, ...]) -> Histogram:
    ordered = sorted(values)
    counts = tuple(float(bisect.bisect_right(ordered, bound)) for bound in bounds)
    return Histogram(bounds, counts)


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_quantile_of_a_window_is_within_its_bucket_of_the_exact_one(share: float) -> None:
    generator = random.Random(7)
    bounds = (*(0.01 * step for step in range(1, 200)), INF)
    old = [generator.expovariate(0.7) for _ in range(3000)]
    new = [generator.lognormvariate(-1.5, 0.6) for _ in range(5000)]
    window = of(old + new, bounds).since(of(old, bounds))
    assert window.count == len(new)
    exact = sorted(new)[math.ceil(share * len(new)) - 1]
    found = window.quantile(share)
    assert found == pytest.approx(exact, abs=0.01)
    # The old ones were slower: without the difference it would be another figure.
    assert of(old + new, bounds).quantile(share) != pytest.approx(exact, abs=0.01)


def test_interpolation_by_hand() -> None:
    one = Histogram((0.1, 0.2, 0.4, INF), (2.0, 6.0, 8.0, 10.0))
    assert one.quantile(0.1) == pytest.approx(0.05)  # the first bucket begins at 0
    assert one.quantile(0.5) == pytest.approx(0.175)  # 3 of the 4 between 0.1 and 0.2
    assert one.quantile(0.8) == pytest.approx(0.4)
    assert one.quantile(0.95) == 0.4  # beyond the last finite bound: that bound
    empty_first = Histogram((0.1, 0.2, INF), (0.0, 4.0, 4.0))
    assert empty_first.quantile(0.5) == pytest.approx(0.15)


@pytest.mark.parametrize(
    "nothing",
    [
        Histogram((), ()),
        Histogram((INF,), (3.0,)),
        Histogram((0.1, INF), (0.0, 0.0)),
        Histogram((0.1, 0.2), (1.0, 2.0)),
    ],
)
def test_no_quantile_of_nothing(nothing: Histogram) -> None:
    assert nothing.quantile(0.5) is None


def test_counted_anew_when_smaller_or_cut_otherwise() -> None:
    before = Histogram((0.1, INF), (5.0, 9.0))
    again = Histogram((0.1, INF), (4.0, 9.0))
    assert again.less_than(before)
    assert again.since(before) == again
    otherwise = Histogram((0.2, INF), (50.0, 90.0))
    assert otherwise.since(before) == otherwise
    assert Histogram((0.1, INF), (6.0, 11.0)).since(before).counts == (1.0, 2.0)


@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=8),
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
)
def test_quantiles_rise_and_stay_inside(steps: list[int], one: float, other: float) -> None:
    counts = tuple(map(float, itertools.accumulate(steps)))
    bounds = (*(0.5 * (i + 1) for i in range(len(steps) - 1)), INF)
    histogram = Histogram(bounds, counts)
    low, high = (histogram.quantile(share) for share in sorted((one, other)))
    if not counts[-1]:
        assert low is None
        assert high is None
        return
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= bounds[-2]


def test_prometheus_says_the_same(tmp_path: Path) -> None:
    tool = shutil.which("promtool") or shutil.which(KEPT)
    if not tool:
        pytest.skip("promtool is not here")
    generator = random.Random(3)
    bounds = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, INF)
    tests = []
    for number in range(20):
        steps = [generator.choice((0, 0, 1, 3, 40)) for _ in bounds]
        steps[generator.randrange(len(steps))] += 1
        counts = list(itertools.accumulate(steps))
        labels = ["+Inf" if bound == INF else str(bound) for bound in bounds]
        series = [
            {"series": f'h_bucket{{le="{le}"}}', "values": str(count)}
            for le, count in zip(labels, counts, strict=True)
        ]
        histogram = Histogram(bounds, tuple(map(float, counts)))
        expected = [
            {
                "expr": f"histogram_quantile({share}, h_bucket)",
                "eval_time": "0m",
                "exp_samples": [{"labels": "{}", "value": histogram.quantile(share)}],
            }
            for share in (0.5, 0.95)
        ]
        tests.append({"name": str(number), "input_series": series, "promql_expr_test": expected})
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"tests": tests}))  # JSON is YAML too
    done = subprocess.run([tool, "test", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
