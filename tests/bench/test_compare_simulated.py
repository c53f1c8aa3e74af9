"""How often an unchanged server raises an alarm, and how often a slower one is caught.

The imagined server's times cluster in time, drift from repeat to repeat and differ from run to
run, so that an interval that took requests for independent would fail this.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

import pytest
from simulated import Server, report

from toolkit.bench.compare import compare, parse_gate
from toolkit.bench.report import BenchReport

GATES = [
    parse_gate(text)
    for text in (
        "ttft_p95 > +10%",
        "itl_p50 > +10%",
        "e2e_p95 > +10%",
        "output_throughput < -10%",
    )
]
ZERO = [parse_gate("itl_p50 > +0%"), parse_gate("output_throughput < -0%")]
RUNS = 12
Pairs = Iterable[tuple[BenchReport, BenchReport]]


@pytest.fixture(scope="module")
def unchanged() -> list[BenchReport]:
    return [report(Server(), seed) for seed in range(RUNS)]


def tally(pairs: Pairs, gates: list) -> Counter[str]:  # type: ignore[type-arg]
    """Comparisons by their exit: one broken limit fails, one open question leaves it open."""
    found: Counter[str] = Counter()
    for base, new in pairs:
        outcomes = {one.outcome for one in compare(base, new, gates).judgements}
        found[next(one for one in ("failed", "undecided", "passed") if one in outcomes)] += 1
    return found


def test_an_unchanged_server_raises_few_alarms(unchanged: list[BenchReport]) -> None:
    """At most 5% by promise; with a tolerance of 10% beside it, far fewer."""
    pairs = list(itertools.permutations(unchanged, 2))
    assert tally(pairs, GATES)["failed"] <= 0.02 * len(pairs)
    # Without a tolerance only the significance test is left.
    assert tally(pairs, ZERO)["failed"] <= 0.05 * len(pairs)


def test_fifteen_percent_slower_is_caught(unchanged: list[BenchReport]) -> None:
    """Nine comparisons in ten, and never called passed."""
    slower = [report(Server(slower=1.15), 1000 + seed) for seed in range(RUNS // 2)]
    pairs = list(itertools.product(unchanged, slower))
    found = tally(pairs, GATES)
    assert found["failed"] >= 0.9 * len(pairs)
    assert found["passed"] == 0


def test_a_machine_that_wavers_is_not_blamed_on_the_server() -> None:
    wavering = Server(run=0.1, repeat=0.2)
    runs = [report(wavering, 2000 + seed) for seed in range(8)]
    found = tally(itertools.permutations(runs, 2), GATES)
    assert found["failed"] <= 2
    assert found["undecided"] >= 50


def test_one_repeat_a_side_raises_few_alarms_too() -> None:
    runs = [report(Server(), 3000 + seed, repeats=1, seconds=4.0) for seed in range(RUNS)]
    pairs = list(itertools.permutations(runs, 2))
    assert tally(pairs, GATES)["failed"] <= 0.02 * len(pairs)


def test_failures_are_caught() -> None:
    gates = [parse_gate("error_share > +1%")]
    base, new = report(Server(), 1), report(Server(fails=0.1), 2)
    assert tally([(base, new)], gates) == {"failed": 1}
    assert tally([(base, report(Server(), 3))], gates)["failed"] == 0
