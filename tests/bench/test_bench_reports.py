"""Reports: what is written can be read again, stands alone, and hides nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from toolkit.bench.files import read_report, write_report
from toolkit.bench.html import render_html
from toolkit.bench.load import ClosedLoop, Load, OpenLoop
from toolkit.bench.markdown import render_markdown
from toolkit.bench.metrics import Objective, Window
from toolkit.bench.records import Request, RequestRecord, Usage
from toolkit.bench.report import SCHEMA_VERSION, BenchReport, Machine, TargetFacts
from toolkit.bench.saturation import ClientHealth
from toolkit.bench.summary import Measurement, summarize_point
from toolkit.bench.svg import Axis, Line, line_chart
from toolkit.bench.workload import Independent
from toolkit.errors import EnvironmentError_, SpecError

CALM = ClientHealth(loop_lag_p99_ms=1, send_lag_p99_ms=1, cpu_share=0.1, saturated=False)


def run_of(speed: float, failing: int = 0) -> Measurement:
    records = []
    for number in range(20):
        start = number * 0.4
        times = [start + speed * (k + 1) for k in range(8)]
        record = RequestRecord(Request(number, "p", 8, start), sent=start, responses=times)
        if number < failing:
            record.fail("overload", "queue is full <b>now</b> | really")
            record.ended = times[-1]
        else:
            usage = Usage(output_tokens=16, prompt_tokens=10, cached_tokens=5, draft_tokens=0)
            record.complete(times[-1], usage)
        records.append(record)
    objectives = {"": Objective(ttft_ms=70)}
    return Measurement("0:1.1", Window(0.0, 9.0, records, records, objectives), CALM)


def report_of(*points: tuple[Load, list[Measurement]], **changes: object) -> BenchReport:
    made = BenchReport(
        toolkit_version="0",
        created="2026-01-01T00:00:00+00:00",
        title="a <script>alert(1)</script> title",
        partial=False,
        target=TargetFacts(name="m", protocol="grpc", url="grpc://h:1", server="triton 2"),
        machine=Machine(cpu="c", cores=2, memory_bytes=2**34, system="s", python="3"),
        workload=Independent(),
        stop={"duration": 9.0},
        objectives={"": Objective(ttft_ms=70)},
        seed=1,
        prompt_unit="tokens",
        tokens_counted_by="server",
        points=tuple(summarize_point(load, runs) for load, runs in points),
        notes=("1 user: 3 x overload: queue is full",),
    )
    return made.model_copy(update=changes)


@pytest.fixture
def report() -> BenchReport:
    return report_of(
        (ClosedLoop(concurrency=1), [run_of(0.02), run_of(0.022)]),
        (ClosedLoop(concurrency=8), [run_of(0.05, failing=3), run_of(0.06)]),
    )


def test_a_report_is_read_as_it_was_written(report: BenchReport, tmp_path: Path) -> None:
    paths = write_report(report, tmp_path / "a" / "b")
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    assert read_report(tmp_path / "a" / "b") == read_report(paths[0]) == report
    assert report.schema_version == SCHEMA_VERSION
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(
        path.name for path in paths
    )


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text('{"schema_version": 1}')
    with pytest.raises(SpecError):
        read_report(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_environment_error(
    report: BenchReport, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentError_):
        write_report(report, tmp_path / "file" / "below")


def test_figures_of_the_tables_are_those_of_the_records(report: BenchReport) -> None:
    slow = report.points[1]
    assert slow.distributions["ttft"].stats["p50"].value == pytest.approx(55)
    assert slow.distributions["ttft"].count == 37
    assert slow.totals["error_share"].value == pytest.approx(3 / 40)
    assert slow.totals["good_share"].value == pytest.approx(37 / 40)
    text = render_markdown(report)
    row = next(line for line in text.splitlines() if line.startswith("| 8 users"))
    assert "55.0" in row
    assert "7.5%" in row
    assert "92.5%" in row


class _Page(HTMLParser):
    """Collects tags, and whatever would be fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(v) for k, v in attrs if k in ("src", "href", "action", "data")]


def test_the_page_stands_alone_and_escapes_what_it_shows(report: BenchReport) -> None:
    html = render_html(report)
    page = _Page()
    page.feed(html)
    assert page.links == []
    assert "url(" not in html
    assert "@import" not in html
    assert "script" not in page.tags
    assert "b" in page.tags  # the tiles' figures
    assert "<b>now" not in html
    pictures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(pictures) == 6
    for picture in pictures:
        ElementTree.fromstring(picture)
        assert "nan" not in picture.lower()


def test_every_load_is_in_the_legend_and_every_failure_on_the_timeline(
    report: BenchReport,
) -> None:
    html = render_html(report)
    assert html.count("</i>8 users</span>") >= 3
    assert html.count('<rect class="fail"') == 3


def test_one_open_load_has_no_curve_over_loads() -> None:
    load = OpenLoop(type="open", rate=2.5)
    html = render_html(report_of((load, [run_of(0.02)])))
    assert html.count("<svg") == 4
    assert "2.5/s poisson" in html


def test_a_partial_report_says_so_everywhere(report: BenchReport) -> None:
    partial = report.model_copy(update={"partial": True})
    assert "Interrupted" in render_html(partial)
    assert "partial" in render_markdown(partial).splitlines()[0]


def test_a_run_where_everything_failed_can_still_be_shown() -> None:
    report = report_of((ClosedLoop(concurrency=1), [run_of(0.02, failing=20)]))
    assert report.points[0].distributions == {}
    assert "100.0%" in render_markdown(report)
    assert "<svg" in render_html(report)


def test_ticks_are_round_and_inside() -> None:
    assert Axis(0, 10, 0, 100).ticks() == [0, 2, 4, 6, 8, 10]
    assert Axis(3, 900, 0, 100, log=True).ticks() == [5, 10, 20, 50, 100, 200, 500]
    # Between two powers there would be one tick or none, and no way to read the axis.
    assert Axis(26, 42, 0, 100, log=True).ticks() == [30, 35, 40]
    axis = Axis(0.5, 2, 10, 110)
    assert [axis.at(0.5), axis.at(2), axis.at(99)] == [10, 110, 110]


def test_a_chart_without_points_is_no_chart() -> None:
    assert line_chart([], "x", "y") == ""
    assert line_chart([Line("a", [])], "x", "y") == ""
    assert "<svg" in line_chart([Line("a", [(0.0, 0.0)])], "x", "y", log_x=True)


def test_points_of_the_frontier_say_which_load_they_are(report: BenchReport) -> None:
    page = render_html(report)
    marks = re.findall(r'<text class="mark"[^>]*text-anchor="(\w+)">([^<]*)</text>', page)
    assert sorted(word for _, word in marks) == ["1 user", "1 user", "8 users", "8 users"]


def test_marks_stand_where_there_is_room_and_are_no_markup() -> None:
    line = Line("a", [(0.0, 1.0), (10.0, 2.0)], marks=["<left>", "right"])
    drawn = line_chart([line], "x", "y")
    anchors = re.findall(r'class="mark"[^>]*text-anchor="(\w+)">([^<]*)<', drawn)
    assert anchors == [("start", "&lt;left&gt;"), ("end", "right")]
