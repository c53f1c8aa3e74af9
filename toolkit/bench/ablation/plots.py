"""The ablation's plots: frontier, distributions, waterfall, goodput."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from toolkit.bench.ablation.figures import BY_NAME
from toolkit.bench.ablation.report import AblationReport, LoadResults
from toolkit.bench.ablation.words import is_told, times_text
from toolkit.bench.load import OpenLoop
from toolkit.bench.svg import WIDTH, Axis, Line, label, line_chart

_LABELS, _RIGHT, _ROW, _TOP, _BOTTOM = 170.0, 150.0, 26.0, 8.0, 40.0


def plots(report: AblationReport) -> Iterator[tuple[str, str]]:
    """Title and picture of each; the distributions are those of the last load."""
    yield "Throughput over latency", frontier(report)
    busiest = report.loads[-1]
    for metric in ("output_throughput", "e2e.p50"):
        title = f"What each step adds: {BY_NAME[metric].title}, {busiest.label}"
        yield title, waterfall(report, busiest, metric)
    for curve, title in (
        ("ttft", "Time to first token: share of requests below"),
        ("ttft_later", "Time to first token, second and later turns"),
        ("itl", "Inter-token latency: share of pauses below"),
    ):
        yield f"{title}, {busiest.label}", distributions(report, busiest, curve)
    yield "Requests within the SLO over the offered rate", goodput(report)


def frontier(report: AblationReport) -> str:
    """Each step's throughput over its median latency, through all loads."""
    lines = []
    for rung in report.rungs:
        points = []
        for load in report.loads:
            found = load.of(rung.key)
            if found and {"e2e.p50", "output_throughput"} <= set(found.figures):
                figures = found.figures
                points.append((figures["e2e.p50"].value, figures["output_throughput"].value))
        if points and rung.is_step:
            lines.append(Line(rung.title, points, dots=True))
    if sum(len(line.points) for line in lines) < 2:
        return ""
    return line_chart(lines, "median E2E, milliseconds", "output tokens/s", log_x=True)


def distributions(report: AblationReport, load: LoadResults, curve: str) -> str:
    """The steps' distributions of one latency, on a logarithmic axis."""
    lines = [
        Line(report.facts(one.rung).title, [(x, float(p)) for p, x in enumerate(one.curves[curve])])
        for one in load.results
        if curve in one.curves and report.facts(one.rung).is_step
    ]
    positive = [
        Line(line.name, [(max(x, 0.01), y) for x, y in line.points], line.band) for line in lines
    ]
    return line_chart(positive, "milliseconds", "percent", log_x=True, y_max=100.0)


def goodput(report: AblationReport) -> str:
    """Requests within the SLO, over the rates of an open-loop sweep."""
    lines = []
    for rung in report.rungs:
        points = [
            (load.load.rate, found.figures["goodput"].value)
            for load in report.loads
            if isinstance(load.load, OpenLoop)
            and (found := load.of(rung.key))
            and "goodput" in found.figures
        ]
        if len(points) > 1 and rung.is_step:
            lines.append(Line(rung.title, points, dots=True))
    return line_chart(lines, "sessions started per second", "requests/s in SLO") if lines else ""


@dataclass(frozen=True)
class _Step:
    title: str
    before: float
    after: float
    text: str
    kind: str


def waterfall(report: AblationReport, load: LoadResults, metric: str) -> str:
    """Each step's ratio as a bar from where the steps before it have brought the figure."""
    steps = list(_steps(report, load, metric))
    if not steps:
        return ""
    ends = [1.0, *(one.after for one in steps)]
    low, high = min(ends) / 1.1, max(ends) * 1.1
    x = Axis(low, high, _LABELS, WIDTH - _RIGHT, log=True)
    height = _TOP + _ROW * len(steps) + _BOTTOM
    drawn = [_ticks(x, height, report.rungs[0].title)]
    drawn += [_bar(one, x, _TOP + _ROW * row) for row, one in enumerate(steps)]
    return f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img">{"".join(drawn)}</svg>'


def _steps(report: AblationReport, load: LoadResults, metric: str) -> Iterator[_Step]:
    at = 1.0
    for rung in report.rungs[1:]:
        found = report.find(load.label, rung.key, "previous", metric)
        if found is None:
            continue
        kind = "gain" if found.times.value > 1 else "loss"
        if not is_told(found.times):
            kind = "untold"
        after = at * found.times.value
        yield _Step(rung.title, at, after, times_text(found.times), kind)
        at = after


def _ticks(x: Axis, height: float, base: str) -> str:
    bottom, parts = height - _BOTTOM, []
    for tick in sorted({1.0, *x.ticks()}):
        at = x.at(tick)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom:.1f}"/>')
        place = f'x="{at:.1f}" y="{bottom + 16:.1f}"'
        parts.append(f'<text {place} text-anchor="middle">{label(tick)}x</text>')
    middle = (x.near + x.far) / 2
    parts.append(
        f'<text class="axis" x="{middle:.1f}" y="{height - 6:.1f}" text-anchor="middle">'
        f"times better than {escape(base)}</text>"
    )
    return "".join(parts)


def _bar(step: _Step, x: Axis, top: float) -> str:
    left, right = sorted((x.at(step.before), x.at(step.after)))
    middle = top + _ROW / 2 + 4
    return (
        f'<text x="{_LABELS - 8}" y="{middle:.1f}" text-anchor="end">{escape(step.title)}</text>'
        f'<rect class="{step.kind}" x="{left:.1f}" y="{top + 4:.1f}" '
        f'width="{max(right - left, 1.5):.1f}" height="{_ROW - 8:.1f}"/>'
        f'<text x="{WIDTH - _RIGHT + 8:.1f}" y="{middle:.1f}">{escape(step.text)}</text>'
    )
