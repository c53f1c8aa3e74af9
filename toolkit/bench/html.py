"""The report as one HTML page that needs nothing else: style and plots are inside."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from toolkit.bench import rows
from toolkit.bench.load import ClosedLoop, OpenLoop, TraceLoop
from toolkit.bench.report import BenchReport, Point, Span
from toolkit.bench.style import STYLE
from toolkit.bench.svg import Bar, Line, bar_chart, line_chart
from toolkit.bench.sweep_view import goodput_plot, search_table

_MOST_SPANS = 120
_LATENCY_LABEL = "milliseconds"


def render_html(report: BenchReport) -> str:
    """The whole page."""
    partial = '<p class="warn">Interrupted: what is here was measured, but not all of it.</p>'
    notes = "".join(f'<p class="warn">{escape(note)}</p>' for note in report.notes)
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows.facts(report)
    )
    body = [
        f"<h1>{escape(report.title)}</h1>",
        f'<p class="lead">{escape(report.target.name)} &middot; {escape(report.created)}</p>',
        partial if report.partial else "",
        notes,
        _tiles(report),
        *_search(report),
        _table(rows.summary_table(report)),
        f'<div class="plots">{"".join(_plots(report))}</div>',
        *(_details(point) for point in report.points),
        f"<h2>How it was measured</h2><dl>{facts}</dl>",
        f"<p class='small'>{_DEFINITIONS}</p>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


_DEFINITIONS = (
    "TTFT: from the intended start of a request to its first text. ITL: between responses that "
    "follow one another, of which each may carry several tokens. TPOT: from the first text to "
    "the final response, per token after the first. E2E: from the intended start to the final "
    "response. Intervals are 95%: Student's t over repeats, or a bootstrap over requests."
)


def _tiles(report: BenchReport) -> str:
    best = max(report.points, key=lambda point: _value(point, "output_throughput", None) or 0.0)
    wanted = (
        ("output tokens/s", best, "output_throughput", None, ""),
        ("lowest median TTFT", _lowest(report, "ttft"), "ttft", "p50", " ms"),
        ("lowest median ITL", _lowest(report, "itl"), "itl", "p50", " ms"),
        ("lowest median E2E", _lowest(report, "e2e"), "e2e", "p50", " ms"),
    )
    tiles = []
    if report.found_rate and report.found_rate.rate is not None:
        found = report.found_rate
        tiles.append(
            f"<div><b>{found.rate:g}/s</b><span>highest rate in the SLO</span>"
            f"<small>for {found.search.share:.1%} of the requests</small></div>"
        )
    for title, point, metric, stat, unit in wanted:
        value = _value(point, metric, stat) if point else None
        if point and value is not None:
            tiles.append(
                f"<div><b>{rows.number(value)}{unit}</b><span>{title}</span>"
                f"<small>at {escape(point.label)}</small></div>"
            )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _lowest(report: BenchReport, metric: str) -> Point | None:
    found = [point for point in report.points if metric in point.distributions]
    return min(found, key=lambda p: p.distributions[metric].stats["p50"].value, default=None)


def _value(point: Point, metric: str, stat: str | None) -> float | None:
    found = rows.estimate(point, metric, stat)
    return found.value if found else None


def _search(report: BenchReport) -> Iterator[str]:
    if report.found_rate:
        yield f"<p><b>{escape(report.found_rate.sentence)}</b></p>"
        yield _table(search_table(report.found_rate))


def _plots(report: BenchReport) -> Iterator[str]:
    if report.found_rate:
        yield _figure("Goodput over offered rate", goodput_plot(report.found_rate))
    if len(report.points) > 1:
        yield _figure("Throughput by load", _over_load(report))
        yield _figure("Throughput and latency", _frontier(report))
    yield _figure("Time to first token: share of requests below", _curves(report, "ttft"))
    yield _figure("Inter-token latency: share of pauses below", _curves(report, "itl"))
    yield _figure("Output tokens over time", _over_time(report))
    busiest = report.points[-1]
    yield _figure(f"Requests over time, {busiest.label}", _timeline(busiest))


def _figure(title: str, plot: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{plot}</figure>" if plot else ""


def _over_load(report: BenchReport) -> str:
    points, band = [], []
    for point in report.points:
        found = rows.estimate(point, "output_throughput", None)
        if found:
            points.append((_level(point), found.value))
            known = found.low is not None and found.high is not None
            band.append((found.low or 0.0, found.high or 0.0) if known else None)
    first = report.points[0].load
    name = "sessions started per second"
    if isinstance(first, ClosedLoop):
        name = "users"
    elif isinstance(first, TraceLoop) and first.rate is None:
        name = "speed of the trace"
    return line_chart([Line("throughput", points, band, dots=True)], name, "output tokens/s")


def _frontier(report: BenchReport) -> str:
    lines = []
    for title, metric in (("median E2E", "e2e"), ("median TTFT", "ttft")):
        found = [
            (latency, throughput, point.label)
            for point in report.points
            if (latency := _value(point, metric, "p50")) is not None
            and (throughput := _value(point, "output_throughput", None)) is not None
        ]
        if found:
            points = [(latency, throughput) for latency, throughput, _ in found]
            marks = [label for _, _, label in found]
            lines.append(Line(title, points, dots=True, marks=marks))
    return line_chart(lines, _LATENCY_LABEL, "output tokens/s", log_x=True)


def _curves(report: BenchReport, metric: str) -> str:
    lines = [
        Line(point.label, [(value, float(p)) for p, value in enumerate(found.curve)])
        for point in report.points
        if (found := point.distributions.get(metric))
    ]
    positive = [x for line in lines for x, _ in line.points if x > 0]
    wide = bool(positive) and max(positive) > 20 * min(positive)
    return line_chart(lines, _LATENCY_LABEL, "percent", log_x=wide, y_max=100.0)


def _over_time(report: BenchReport) -> str:
    lines = []
    for point in report.points:
        series = point.repeats[0].series
        steps = enumerate(series.tokens_per_s)
        lines.append(Line(point.label, [((i + 0.5) * series.step, rate) for i, rate in steps]))
    return line_chart(lines, "seconds", "output tokens/s")


def _timeline(point: Point) -> str:
    repeat = point.repeats[0]
    bars: list[Bar] = []
    for row, span in enumerate(repeat.spans[:_MOST_SPANS]):
        bars.extend(_bars(row, span))
    plot = bar_chart(bars, "seconds", (0.0, repeat.window_s))
    keys = '<p class="legend"><span><i class="key wait"></i>until the first token</span>'
    keys += '<span><i class="key run"></i>generating</span>'
    keys += '<span><i class="key fail"></i>failed</span></p>'
    left_out = len(repeat.spans) - _MOST_SPANS
    more = f'<p class="small">The first {_MOST_SPANS}; {left_out} more.</p>' if left_out > 0 else ""
    return plot + keys + more if plot else ""


def _bars(row: int, span: Span) -> Iterator[Bar]:
    if span.error:
        yield Bar(row, span.intended, span.ended, "fail", f"failed: {span.error}")
        return
    first = span.ended if span.first is None else span.first
    title = (
        f"TTFT {(first - span.intended) * 1000:.0f} ms, E2E "
        f"{(span.ended - span.intended) * 1000:.0f} ms, {span.output_tokens} tokens"
    )
    yield Bar(row, span.intended, first, "wait", title)
    yield Bar(row, first, span.ended, "run", title)


def _level(point: Point) -> float:
    load = point.load
    if isinstance(load, ClosedLoop):
        return float(load.concurrency)
    return load.rate if isinstance(load, OpenLoop) else load.rate or load.speedup


def _details(point: Point) -> str:
    tables = _table(rows.detail_table(point)) + _table(rows.totals_table(point))
    return f"<details><summary>{escape(point.label)}</summary>{tables}</details>"


def _table(table: rows.Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
