"""Verdicts on hand-made figures, whose intervals can be worked out on paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from simulated import CALM, MACHINE

from toolkit.bench.compare import Comparison, compare, parse_gate
from toolkit.bench.compare.change import ALONE, LIKENESS, RUN_TO_RUN
from toolkit.bench.lengths import Fixed
from toolkit.bench.load import ClosedLoop
from toolkit.bench.metrics import Objective
from toolkit.bench.report import BenchReport, Estimate, Point, Repeat, Series, TargetFacts
from toolkit.bench.statistics import t_quantile
from toolkit.bench.sweep_report import FoundRate
from toolkit.bench.sweep_search import RateSearch
from toolkit.bench.workload import Independent
from toolkit.errors import SpecError

TIGHT = (0.99, 1.0, 1.01, 1.0, 1.0)
LOOSE = (0.7, 1.3, 1.0, 0.8, 1.2)


def repeat(figures: dict[str, float], error: float | None = 0.005) -> Repeat:
    known = {} if error is None else {name: error for name in figures if "share" not in name}
    return Repeat(
        seed="0",
        window_s=1,
        requests=100,
        completed=100,
        figures=figures,
        standard_errors={**known, **({"error_share": 0.0} if error is not None else {})},
        blocks=10 if error is not None else 0,
        client=CALM,
        series=Series(step=1, tokens_per_s=(1.0,)),
        spans=(),
    )


def point(users: int, repeats: Sequence[Repeat]) -> Point:
    shares = [one.figures.get("error_share", 0.0) for one in repeats]
    return Point(
        label=f"{users} users",
        load=ClosedLoop(concurrency=users),
        distributions={},
        totals={"error_share": Estimate(value=sum(shares) / len(shares))},
        errors=(),
        repeats=tuple(repeats),
    )


def report(*points: Point, **changes: object) -> BenchReport:
    made = BenchReport(
        toolkit_version="0",
        created="2026-01-01T00:00:00+00:00",
        title="m",
        partial=False,
        target=TargetFacts(name="m", protocol="grpc"),
        machine=MACHINE,
        workload=Independent(),
        stop={"duration": 1.0},
        objectives={},
        seed=1,
        prompt_unit="tokens",
        tokens_counted_by="server",
        points=points,
    )
    return made.model_copy(update=changes)


def of(value: float, factors: Sequence[float] = TIGHT, name: str = "ttft.p95") -> BenchReport:
    return report(point(4, [repeat({name: value * factor}) for factor in factors]))


def outcome(base: BenchReport, new: BenchReport, *gates: str) -> list[str]:
    found = compare(base, new, [parse_gate(gate) for gate in gates])
    return [one.outcome for one in found.judgements]


@pytest.mark.parametrize(
    ("gate", "new", "expected"),
    [
        ("ttft_p95 > +10%", 115, "failed"),
        ("ttft_p95 > +10%", 108, "passed"),  # real, but within the limit
        ("ttft_p95 > +10%", 100, "passed"),
        ("ttft_p95 > +10%", 50, "passed"),
        ("ttft_p95 > +10ms", 115, "failed"),
        ("ttft_p95 > +10ms", 104, "passed"),
        ("ttft_p95 < -10%", 85, "failed"),
        ("ttft_p95 < -10%", 115, "passed"),
        ("ttft_p95 > 105ms", 115, "failed"),
        ("ttft_p95 > 105ms", 100, "passed"),
        ("ttft_p95 > 105ms", 105.5, "undecided"),  # beyond, perhaps by chance
        ("ttft_p95 > -10%", 80, "passed"),  # asks for an improvement
        ("ttft_p95 > -10%", 100, "failed"),
        ("ttft_p95 > -10%", 90.5, "undecided"),
        ("ttft_p95 > +0%", 115, "failed"),
        ("ttft_p95 > +0%", 100.5, "undecided"),
        ("ttft_p95 > +0%", 99.5, "passed"),
    ],
)
def test_steady_figures(gate: str, new: float, expected: str) -> None:
    assert outcome(of(100), of(new), gate) == [expected]


@pytest.mark.parametrize("new", [95, 104, 115])
def test_what_cannot_be_told_is_not_called_passed(new: float) -> None:
    found = compare(of(100, LOOSE), of(new, LOOSE), [parse_gate("ttft_p95 > +10%")])
    (judged,) = found.judgements
    assert judged.outcome == "undecided"
    assert judged.difference
    assert (judged.difference.low or 0) < 0 < 0.1 < (judged.difference.high or 0)
    assert (judged.difference.detectable or 0) > 0.5
    assert "would be sure to show" in judged.evidence


def test_a_change_too_large_for_chance_fails_even_if_runs_are_loose() -> None:
    assert outcome(of(100, LOOSE), of(400, LOOSE), "ttft_p95 > +10%") == ["failed"]


def test_the_interval_is_that_of_the_method() -> None:
    found = compare(of(100), of(110), [parse_gate("ttft_p95 > +10%")], confidence=0.98)
    shown = found.judgements[0].difference
    assert shown
    variance = 0.0002 / 4  # of TIGHT about its mean; both sides alike
    seen = 2 * (variance / 5 + LIKENESS * (variance - 0.005**2))
    unseen = 2 * RUN_TO_RUN**2
    degrees = int(8 * ((seen + unseen) / seen) ** 2)
    half = t_quantile(0.98, degrees) * math.sqrt(seen + unseen)
    assert math.log1p(shown.low or 0) == pytest.approx(math.log(1.1) - half)
    assert math.log1p(shown.high or 0) == pytest.approx(math.log(1.1) + half)
    assert shown.change == pytest.approx(0.1)


def test_repeats_that_agree_by_chance_do_not_hide_their_own_noise() -> None:
    equal = [repeat({"ttft.p95": 100.0}, error=0.2)] * 5
    more = [repeat({"ttft.p95": 115.0}, error=0.2)] * 5
    gate = "ttft_p95 > +10%"
    assert outcome(report(point(4, equal)), report(point(4, more)), gate) == ["undecided"]


def test_one_repeat_a_side_has_its_stretches_and_an_assumed_difference_of_runs() -> None:
    def single(value: float, error: float | None) -> BenchReport:
        return report(point(4, [repeat({"ttft.p95": value}, error)]))

    gate = "ttft_p95 > +10%"
    assert outcome(single(100, 0.01), single(130, 0.01), gate) == ["failed"]
    assert outcome(single(100, 0.01), single(105, 0.01), gate) == ["undecided"]
    assert outcome(single(100, 0.2), single(130, 0.2), gate) == ["undecided"]
    assert outcome(single(100, None), single(130, 0.01), gate) == ["undecided"]
    found = compare(single(100, 0.01), single(130, 0.01), [parse_gate(gate)])
    shown = found.judgements[0].difference
    assert shown
    assert shown.method == "stretches"
    half = t_quantile(0.95, 18) * math.sqrt(2 * (0.01**2 + ALONE**2))
    assert math.log1p(shown.high or 0) == pytest.approx(math.log(1.3) + half)


def test_more_limits_need_more_evidence() -> None:
    def judged(*gates: str) -> Comparison:
        return compare(of(100), of(112), [parse_gate(gate) for gate in gates])

    alone = judged("ttft_p95 > +10%").judgements[0].difference
    among = judged("ttft_p95 > +10%", *["ttft_p95 > 900ms"] * 9).judgements[0].difference
    assert alone
    assert among
    assert (among.high or 0) - (among.low or 0) > 1.2 * ((alone.high or 0) - (alone.low or 0))


def test_shares_change_by_points_and_zero_failures_are_not_zero_doubt() -> None:
    def failing(share: float) -> BenchReport:
        return report(point(4, [repeat({"error_share": share})] * 5))

    assert outcome(failing(0.0), failing(0.2), "error_share > +1%") == ["failed"]
    assert outcome(failing(0.0), failing(0.0), "error_share > +5%") == ["passed"]
    assert outcome(failing(0.0), failing(0.002), "error_share > +0.1%") == ["undecided"]
    assert outcome(failing(0.0), failing(0.2), "error_share > 1%") == ["failed"]


def test_a_figure_that_no_longer_exists_fails_and_a_new_one_is_undecided() -> None:
    with_ttft = of(100)
    without = report(point(4, [repeat({"error_share": 1.0})] * 5))
    assert outcome(with_ttft, without, "ttft_p95 > +10%") == ["failed"]
    assert outcome(without, with_ttft, "ttft_p95 > +10%") == ["undecided"]
    with pytest.raises(SpecError, match="neither report measured itl_p50"):
        outcome(with_ttft, with_ttft, "itl_p50 > +10%")


def test_of_nothing_there_is_no_percentage() -> None:
    zero, some = of(0, name="queue_time.p50"), of(30, name="queue_time.p50")
    assert outcome(zero, some, "queue_time_p50 > +10%") == ["undecided"]
    assert outcome(zero, zero, "queue_time_p50 > +10%") == ["passed"]
    assert outcome(zero, some, "queue_time_p50 > 10ms") == ["failed"]
    assert outcome(some, zero, "queue_time_p50 < -10%") == ["failed"]


def test_each_common_load_is_judged_and_one_can_be_picked() -> None:
    def both(low: float, high: float, *more: int) -> BenchReport:
        levels = [(1, low), (32, high), *((users, 1.0) for users in more)]
        return report(
            *(
                point(users, [repeat({"ttft.p95": value * factor}) for factor in TIGHT])
                for users, value in levels
            )
        )

    base, new = both(100, 100, 64), both(100, 130)
    assert outcome(base, new, "ttft_p95 > +10%") == ["passed", "failed"]
    assert outcome(base, new, "ttft_p95 > +10% @ 1 users") == ["passed"]
    with pytest.raises(SpecError, match="no load '2 users'") as caught:
        outcome(base, new, "ttft_p95 > +10% @ 2 users")
    assert "1 users, 32 users" in (caught.value.hint or "")
    assert "only base has 64 users" in compare(base, new).differing


def test_other_work_is_refused_and_says_what_differs() -> None:
    other = of(100).model_copy(update={"workload": Independent(prompt_tokens=Fixed(tokens=9))})
    with pytest.raises(SpecError, match="different work") as caught:
        compare(of(100), other)
    assert any("workload.prompt_tokens" in line for line in caught.value.details)
    counted = of(100).model_copy(update={"tokens_counted_by": "responses"})
    with pytest.raises(SpecError, match="different work"):
        compare(of(100), counted)
    elsewhere = report(point(5, [repeat({"ttft.p95": 1.0})] * 5))
    with pytest.raises(SpecError, match="no load in common"):
        compare(of(100), elsewhere)


def test_other_circumstances_are_said() -> None:
    new = of(100).model_copy(
        update={
            "machine": MACHINE.model_copy(update={"cores": 64}),
            "partial": True,
            "objectives": {"": Objective(ttft_ms=5)},
        }
    )
    said = "\n".join(compare(of(100), new).differing)
    assert "machine.cores: 2 in base, 64 in new" in said
    assert "new was interrupted" in said
    with pytest.raises(SpecError, match="different SLOs"):
        outcome(of(100), new, "goodput < -5%")


def test_failures_that_flatter_latency_are_said() -> None:
    def failing(share: float) -> BenchReport:
        return report(point(4, [repeat({"error_share": share, "ttft.p95": 10.0})] * 5))

    (line,) = compare(failing(0.0), failing(0.5)).differing
    assert "50.0% of the requests failed" in line


def test_rows_tell_better_from_worse() -> None:
    def found(new: float, name: str) -> str:
        return compare(of(100, name=name), of(new, name=name)).rows[0].verdict

    assert found(130, "ttft.p95") == "worse"
    assert found(70, "ttft.p95") == "better"
    assert found(130, "output_throughput") == "better"
    assert found(101, "output_throughput") == "none seen"


def test_searches_that_tried_no_common_load_are_refused_with_what_they_found() -> None:
    search = RateSearch(type="search")
    rate = FoundRate(search=search, rate=3.5, above=4.0, bound="server", verdicts={}, probes=())
    base = of(100).model_copy(update={"found_rate": rate})
    elsewhere = report(point(5, [repeat({"ttft.p95": 1.0})] * 5), found_rate=rate)
    with pytest.raises(SpecError) as caught:
        compare(base, elsewhere)
    assert any("new: 3.5 sessions a second keep" in line for line in caught.value.details)
    assert any("3.5 sessions" in line for line in compare(base, base).differing)


def test_a_rate_can_fall_by_no_more_than_all_of_it() -> None:
    def detectable(name: str, gate: str) -> tuple[float, float]:
        found = compare(of(100, LOOSE, name), of(100, LOOSE, name), [parse_gate(gate)])
        (row,), (judged,) = found.rows, found.judgements
        assert judged.difference
        return row.detectable or 0, judged.difference.detectable or 0

    up = detectable("ttft.p95", "ttft_p95 > +10%")
    down = detectable("output_throughput", "output_throughput < -10%")
    for more, less in zip(up, down, strict=True):
        assert more > 1
        assert less == pytest.approx(more / (1 + more))


def test_what_is_sure_to_show_includes_the_way_to_the_limit() -> None:
    found = compare(of(100), of(100), [parse_gate("ttft_p95 > +10%")])
    (judged,) = found.judgements
    assert judged.difference
    assert 0.1 < (judged.difference.detectable or 0) < 0.15
    assert (found.rows[0].detectable or 1) < 0.1


def test_rows_are_intervals_to_both_sides() -> None:
    """Half of the doubt lies above and half below, or one in ten tables would be wrong."""
    (row,) = compare(of(100), of(100)).rows
    found = compare(of(100), of(100), [parse_gate("ttft_p95 > +10%")], confidence=0.975)
    shown = found.judgements[0].difference
    assert shown
    assert row.high == pytest.approx(shown.high)


def test_that_all_limits_are_kept_needs_no_more_evidence_than_that_one_is() -> None:
    """All are called kept only where each is; chance cannot pick the one that suits it."""
    gates = ("ttft_p95 > +10%", "ttft_p95 > +9.9%", *["ttft_p95 > 900ms"] * 8)
    for factors in (TIGHT, (0.96, 1.04, 1.0, 0.98, 1.02)):
        base, new = of(100, factors), of(100, factors)
        assert outcome(base, new, gates[0]) == ["passed"]
        assert outcome(base, new, *gates)[0] == "passed"
    (judged, *_) = compare(base, new, [parse_gate(gate) for gate in gates]).judgements
    alone = compare(base, new, [parse_gate(gates[0])]).judgements[0]
    assert judged.difference
    assert alone.difference
    assert judged.difference.high == alone.difference.high
    assert (judged.difference.low or 0) < (alone.difference.low or 0)


def test_a_repeat_that_was_cut_short_does_not_count_beside_whole_ones() -> None:
    def with_stub(**stub: object) -> BenchReport:
        made = [repeat({"ttft.p95": 100 * factor}) for factor in TIGHT]
        return report(point(4, [*made, repeat({"ttft.p95": 300.0}).model_copy(update=stub)]))

    gate = "ttft_p95 > +10%"
    assert outcome(of(100), with_stub(), gate) == ["undecided"]
    assert outcome(of(100), with_stub(partial=True), gate) == ["passed"]
    only = report(point(4, [repeat({"ttft.p95": 150.0}).model_copy(update={"partial": True})]))
    assert compare(of(100), only, [parse_gate(gate)]).judgements[0].difference


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_no_number_is_no_figure(broken: float) -> None:
    made = [repeat({"ttft.p95": value}) for value in (100.0, broken, 101.0, 99.0)]
    assert outcome(of(100), report(point(4, made)), "ttft_p95 > +10%") == ["passed"]
    made = [repeat({"ttft.p95": 100.0}, error=broken) for _ in range(5)]
    assert outcome(of(100), report(point(4, made)), "ttft_p95 > +10%") == ["passed"]
    made = [repeat({"ttft.p95": broken})] * 5
    assert outcome(of(100), report(point(4, made)), "ttft_p95 > +10%") == ["failed"]


def test_a_limit_of_nothing_is_passed_by_anything() -> None:
    zero, some = of(0, name="queue_time.p50"), of(30, name="queue_time.p50")
    assert outcome(zero, some, "queue_time_p50 > 0ms") == ["failed"]
    assert outcome(some, zero, "queue_time_p50 > 0ms") == ["passed"]
    assert outcome(zero, some, "queue_time_p50 < 0ms") == ["passed"]


def test_loads_that_an_interrupted_run_did_not_reach_are_not_called_passed() -> None:
    def both(*users: int, **changes: object) -> BenchReport:
        made = [point(one, [repeat({"ttft.p95": 100 * f}) for f in TIGHT]) for one in users]
        return report(*made, **changes)

    gates = ("ttft_p95 > +10%", "ttft_p95 > +10% @ 1 user")
    base = report(
        *(one.model_copy(update={"label": "1 user"}) for one in both(1).points), *both(32).points
    )
    new = report(base.points[0])
    assert outcome(base, new, *gates) == ["passed"] * 2
    cut = new.model_copy(update={"partial": True})
    assert outcome(base, cut, *gates) == ["passed", "passed", "undecided"]
    (left,) = compare(base, cut, [parse_gate(gates[0])]).having("undecided")
    assert (left.load, left.evidence) == ("32 users", "new ended before this load")
    died = new.model_copy(update={"failure": "load process 2 died"})
    assert outcome(base, died, *gates) == ["passed", "passed", "undecided"]
    assert "new ended early: load process 2 died" in compare(base, died).differing
