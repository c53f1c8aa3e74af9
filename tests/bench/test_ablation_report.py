"""An ablation's statistics with known answers, and reports that say what they hold."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ablation_slots import USERS, measurement, simple, slot

from toolkit.bench.ablation.assemble import Frame, Slots, assemble
from toolkit.bench.ablation.claims import claims_table, judged
from toolkit.bench.ablation.figures import BY_NAME
from toolkit.bench.ablation.files import read_ablation, write_ablation
from toolkit.bench.ablation.html import render_html
from toolkit.bench.ablation.markdown import render_markdown
from toolkit.bench.ablation.plots import plots
from toolkit.bench.ablation.ratios import mean_of, times_better
from toolkit.bench.ablation.report import AblationReport, LeftOutStep, Removal, RungFacts
from toolkit.bench.ablation.words import is_told, times_text, verdict
from toolkit.bench.load import OpenLoop
from toolkit.bench.report import Estimate
from toolkit.errors import EnvironmentError_, SpecError

E2E, TOKENS = BY_NAME["e2e.p50"], BY_NAME["output_throughput"]


def test_ratios_are_paired_by_round_and_averaged_as_logarithms() -> None:
    found = times_better((10.0, 5.0), (20.0, 40.0), "lower")
    assert found is not None
    times, rounds = found
    assert rounds == 2
    assert times.value == pytest.approx(4.0)  # 2x and 8x
    # Student's t of one degree is 12.706; ln 2 and ln 8 are ln 2 away from their mean.
    half = 12.7062 * math.log(2)
    assert times.low == pytest.approx(4 * math.exp(-half), rel=1e-4)
    assert times.high == pytest.approx(4 * math.exp(half), rel=1e-4)
    assert times.method == "t"


def test_more_is_better_for_throughput_and_less_for_latency() -> None:
    for better, value in (("higher", 3.0), ("lower", 1 / 3)):
        found = times_better((30.0,), (10.0,), better)  # type: ignore[arg-type]
        assert found is not None
        assert found[0].value == pytest.approx(value)
        assert (found[0].low, found[0].high, found[1]) == (None, None, 1)


def test_a_drift_that_both_share_leaves_the_ratio() -> None:
    found = times_better((1.0, 2.0, 4.0), (3.0, 6.0, 12.0), "lower")
    assert found is not None
    times, _ = found
    assert times.low == pytest.approx(3.0)
    assert times.high == pytest.approx(3.0)


def test_rounds_that_lack_one_of_the_two_do_not_count() -> None:
    found = times_better((1.0, None, 0.0, 2.0), (2.0, 2.0, 2.0, 4.0), "lower")
    assert found is not None
    assert found[1] == 2
    assert times_better((None, 1.0), (1.0, None), "lower") is None
    assert times_better((0.0,), (1.0,), "higher") is None


def test_the_mean_has_an_interval_from_two_rounds_on() -> None:
    assert mean_of((None, None)) is None
    assert mean_of((3.0,)) == Estimate(value=3.0)
    two = mean_of((1.0, None, 3.0))
    assert two is not None
    assert (two.value, two.low) == (2.0, pytest.approx(2 - 12.7062))


@pytest.mark.parametrize(
    ("value", "low", "high", "metric", "words"),
    [
        (5.0, 4.0, 6.0, E2E, "5.00 times lower, by 80% (4.00x to 6.00x as good, 3 rounds)"),
        (1.25, 1.1, 1.4, E2E, "lower by 20%"),
        (0.8, 0.7, 0.9, E2E, "higher by 25%"),
        (0.4, 0.3, 0.5, E2E, "2.50 times higher"),
        (1.25, 1.1, 1.4, TOKENS, "higher by 25%"),
        (0.9, 0.8, 0.95, TOKENS, "lower by 10%"),
        (1.3, 0.9, 1.9, TOKENS, "no difference could be told (0.90x to 1.90x as good, 3 rounds)"),
        (1.0, 1.0, 1.0, TOKENS, "no difference could be told"),
    ],
)
def test_an_interval_in_words(
    value: float, low: float, high: float, metric: object, words: str
) -> None:
    times = Estimate(value=value, low=low, high=high, method="t")
    said = verdict(times, 3, metric)  # type: ignore[arg-type]
    assert said.startswith(words)
    assert is_told(times) != said.startswith("no difference")


def test_one_round_is_no_proof() -> None:
    single = Estimate(value=3.0)
    assert not is_told(single)
    assert "no interval" in verdict(single, 1, E2E)
    assert times_text(single) == "3.00x"
    assert times_text(Estimate(value=12.3, low=9.0, high=200.0)) == "12.3x (9.00 to 200)"


RUNGS = (
    RungFacts(key="naive", title="naive", changes=("engine.limits.max_batch_size = 1",)),
    RungFacts(key="kv-reuse", title="+ KV <reuse>", adds=("kv-reuse",), pays="Prefixes pay."),
    RungFacts(key="scheduling", title="+ scheduling (full)", adds=("scheduling",), is_full=True),
    RungFacts(key="without-kv-reuse", title="full without KV reuse", is_step=False),
)
SLOWNESS = {
    "naive": (1.0, 1.0),
    "kv-reuse": (0.5, 0.1),
    "scheduling": (0.25, 0.05),
    "without-kv-reuse": (0.5, 0.5),
}


def slots(rounds: int = 3) -> Slots:
    return {
        (number, key): simple(slow * (1 + number / 10), later * (1 + number / 10))
        for number in range(rounds)
        for key, (slow, later) in SLOWNESS.items()
    }


def frame(**changes: object) -> Frame:
    settings = {
        "title": "m: <ablation>",
        "created": "2026-01-01T00:00:00+00:00",
        "rungs": RUNGS,
        "rounds": 3,
        "removals": (Removal(feature="kv-reuse", title="KV reuse", rung="without-kv-reuse"),),
        "left_out": (LeftOutStep(key="speculation", title="speculation", reason="is <not> set"),),
    }
    return Frame(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture
def report() -> AblationReport:
    return assemble(frame(), slots())


def times(report: AblationReport, rung: str, against: str, metric: str, feature: str = "") -> float:
    found = report.find(USERS.label, rung, against, metric, feature)  # type: ignore[arg-type]
    assert found is not None
    return found.times.value


def test_every_rung_is_held_against_the_first_and_the_one_before(report: AblationReport) -> None:
    assert times(report, "kv-reuse", "first", "ttft_later.p50") == pytest.approx(10)
    assert times(report, "scheduling", "first", "ttft_later.p50") == pytest.approx(20)
    assert times(report, "scheduling", "previous", "ttft_later.p50") == pytest.approx(2)
    assert times(report, "without-kv-reuse", "first", "itl.p50") == pytest.approx(2)
    assert report.find(USERS.label, "without-kv-reuse", "previous", "e2e.p50") is None


def test_full_is_held_against_full_without_each(report: AblationReport) -> None:
    assert times(report, "scheduling", "removed", "ttft_later.p50", "kv-reuse") == pytest.approx(10)
    assert times(report, "scheduling", "removed", "itl.p50", "kv-reuse") == pytest.approx(2)


def test_later_turns_are_told_apart(report: AblationReport) -> None:
    found = report.loads[0].of("kv-reuse")
    assert found is not None
    assert found.rounds["ttft_later.p50"] == pytest.approx((100, 110, 120))
    assert found.rounds["ttft.p50"] == pytest.approx((300, 330, 360))  # between 100 and 500
    assert found.curves["ttft_later"] == pytest.approx((110,) * 101, rel=1e-3)
    assert found.curves["ttft"][100] == pytest.approx(550, rel=1e-3)
    assert found.requests == found.completed == 36


def test_goodput_of_nothing_has_no_ratio() -> None:
    made = assemble(frame(), {(0, "naive"): simple(9.0), (0, "kv-reuse"): simple(0.1)})
    figures = made.loads[0].of("naive")
    assert figures is not None
    assert figures.figures["goodput"].value == 0
    assert made.find(USERS.label, "kv-reuse", "first", "goodput") is None


def test_a_rung_that_was_not_measured_is_named_and_compared_with_nothing() -> None:
    made = assemble(
        frame(partial=True), {k: v for k, v in slots(1).items() if k[1] != "scheduling"}
    )
    assert "nothing was measured of + scheduling (full)" in made.notes
    assert [one.key for one in made.rungs] == ["naive", "kv-reuse", "without-kv-reuse"]
    assert all(one.against != "removed" for one in made.comparisons)
    assert made.partial


def test_the_seed_is_the_first_rounds_whatever_was_measured_first() -> None:
    frame = Frame("t", "c", (RungFacts(key="naive", title="naive"),), 2)
    late = simple(1.0).model_copy(update={"seed": 8})
    assert assemble(frame, {(1, "naive"): late}).seed == 7


def test_nothing_measured_is_no_report() -> None:
    with pytest.raises(ValueError, match="nothing"):
        assemble(frame(), {})


def test_what_slots_note_is_said_once_with_the_rung() -> None:
    noted = slot((USERS, measurement(1.0)), notes=("the client was saturated",))
    made = assemble(frame(), {(0, "naive"): noted, (1, "naive"): noted})
    assert made.notes.count("naive: the client was saturated") == 1


def test_a_report_is_read_as_it_was_written(report: AblationReport, tmp_path: Path) -> None:
    written = write_ablation(report, tmp_path / "a")
    assert [one.name for one in written] == ["ablation.json", "ablation.md", "ablation.html"]
    assert read_ablation(tmp_path / "a") == read_ablation(written[0]) == report
    with pytest.raises(SpecError, match="no ablation"):
        read_ablation(tmp_path / "b.json")
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(SpecError, match="of this version"):
        read_ablation(tmp_path / "c.json")
    with pytest.raises(EnvironmentError_, match="cannot be written"):
        write_ablation(report, tmp_path / "c.json")


def test_markdown_holds_the_ratios_and_what_was_left_out(report: AblationReport) -> None:
    text = render_markdown(report)
    (row,) = [
        line
        for line in text.splitlines()
        if line.startswith("| + scheduling (full)") and "20.0x (20.0 to 20.0)" in line
    ]
    assert row.count("|") == 8
    assert "speculation: is <not> set" in text
    assert "engine.limits.max_batch_size = 1" in text
    assert "median TTFT of later turns 5.00 times lower" not in text  # the step is 10x
    assert "median TTFT of later turns 10.0 times lower" in text


def test_a_step_that_does_not_help_says_where_it_does() -> None:
    same = {(n, key): simple(1.0 + n / 10) for n in range(3) for key in ("naive", "kv-reuse")}
    text = render_markdown(assemble(frame(), same))
    assert "no difference could be told" in text
    assert "Prefixes pay." in text
    assert "Prefixes pay." not in render_markdown(assemble(frame(), slots()))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (5.2, 9.0, "reached"),
        (5.1, 9.0, "reached"),
        (4.0, 9.0, "cannot be told"),
        (4.0, 5.0, "missed"),
    ],
)
def test_a_claim_is_borne_out_only_by_the_whole_interval(
    low: float, high: float, verdict: str
) -> None:
    assert judged(Estimate(value=6.0, low=low, high=high, method="t"), 5.1) == verdict


def test_one_round_bears_no_claim_out() -> None:
    assert judged(Estimate(value=6.0), 5.1) == "above in one round"
    assert judged(Estimate(value=5.0), 5.1) == "below in one round"


def test_claims_are_held_against_the_rungs_that_they_are_about(report: AblationReport) -> None:
    rows = claims_table(report, report.loads[0]).rows
    assert [(row[1], row[2], row[4]) for row in rows] == [
        ("+ scheduling (full) against naive", "median E2E", "reached"),
        ("+ scheduling (full) against naive", "output tokens/s", "missed"),
        ("+ KV <reuse> against naive", "median TTFT of later turns", "reached"),
    ]


def test_a_step_of_several_features_bears_no_claim_about_one() -> None:
    joint = RUNGS[1].model_copy(update={"adds": ("in-flight", "kv-reuse")})
    made = assemble(frame(rungs=(RUNGS[0], joint, *RUNGS[2:])), slots())
    assert all("reuse" not in row[1] for row in claims_table(made, made.loads[0]).rows)


def test_the_page_stands_alone_and_its_plots_are_well_formed(report: AblationReport) -> None:
    page = render_html(report)
    assert "<ablation>" not in page
    assert "<reuse>" not in page
    assert not re.search(r"(src|href)=", page)
    HTMLParser().feed(page)
    drawn = {title: plot for title, plot in plots(report) if plot}
    assert len(drawn) == 6
    for plot in drawn.values():
        ElementTree.fromstring(plot[: plot.index("</svg>") + 6])
    assert "20.0x" in page


def test_the_page_is_read_without_markdown_and_without_keys_to_nothing(
    report: AblationReport,
) -> None:
    page = render_html(report)
    assert "`" not in page
    assert "<code>kv-reuse</code>" in page
    assert "no difference could be told</span>" in page
    alone = {(n, key): simple(1.0) for n in range(3) for key in ("naive", "without-kv-reuse")}
    assert "no difference could be told</span>" not in render_html(assemble(frame(), alone))


def test_a_tile_of_a_deployment_that_is_worse_says_so() -> None:
    worse = {
        (n, key): simple(s) for n in range(3) for key, s in (("naive", 0.2), ("scheduling", 1))
    }
    page = render_html(assemble(frame(), worse))
    assert "<b>5.0x</b><span>higher median end-to-end latency</span>" in page
    assert "lower median end-to-end latency" not in page
    assert "fewer tokens a second" in page


def test_a_tile_of_a_deployment_that_is_better_says_so(report: AblationReport) -> None:
    page = render_html(report)
    assert "lower median end-to-end latency" in page
    assert "more tokens a second" in page


def test_number_formats_are_told_with_the_method(report: AblationReport) -> None:
    for text in (render_html(report), render_markdown(report)):
        assert "engine.dtype" in text
        assert "float32" in text


def test_the_waterfall_has_one_bar_a_step_coloured_by_what_could_be_told() -> None:
    uneven = dict(slots())
    for number, slow in enumerate((0.1, 1.0, 0.4)):
        uneven[number, "scheduling"] = simple(slow)
    for number in range(3):
        uneven[number, "kv-reuse"] = simple(2.0 + number / 10)
    made = assemble(frame(), uneven)
    plot = dict(plots(made))[f"What each step adds: median E2E, {USERS.label}"]
    assert re.findall(r'rect class="(\w+)"', plot) == ["loss", "untold"]


def test_an_open_sweep_is_plotted_as_goodput_over_rate() -> None:
    rates = [OpenLoop(type="open", rate=rate) for rate in (1.0, 2.0)]
    one = slot(*[(rate, measurement(0.1)) for rate in rates])
    made = assemble(frame(), {(0, "naive"): one, (0, "kv-reuse"): one})
    assert [load.label for load in made.loads] == [rate.label for rate in rates]
    assert dict(plots(made))["Requests within the SLO over the offered rate"].count("<circle") == 4
