"""The report's tables as plain text cells, for Markdown, HTML and the terminal alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolkit.bench.metrics import BY_NAME, PERCENTILES
from toolkit.bench.report import BenchReport, Estimate, Point

_MISSING = "-"


@dataclass(frozen=True)
class Table:
    """A table; every column but the first holds figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def summary_table(report: BenchReport) -> Table:
    """One row a load: what most readers want."""
    wanted = [
        ("tokens/s", "output_throughput", None),
        ("requests/s", "request_throughput", None),
        ("TTFT p50", "ttft", "p50"),
        ("TTFT p95", "ttft", "p95"),
        ("ITL p50", "itl", "p50"),
        ("ITL p95", "itl", "p95"),
        ("TPOT p50", "tpot", "p50"),
        ("E2E p50", "e2e", "p50"),
        ("E2E p95", "e2e", "p95"),
        ("in SLO", "good_share", None),
        ("KV reuse", "kv_reuse", None),
        ("drafts accepted", "draft_acceptance", None),
        ("failed", "error_share", None),
    ]
    present = [
        (title, metric, stat)
        for title, metric, stat in wanted
        if any(estimate(point, metric, stat) for point in report.points)
    ]
    rows = [
        (point.label, *(_figure(estimate(point, m, s), m) for _, m, s in present))
        for point in report.points
    ]
    return Table("Summary", ("load", *(_headed(t, m) for t, m, _ in present)), tuple(rows))


def detail_table(point: Point) -> Table:
    """One load: every metric with a distribution."""
    stats = ("mean", *(f"p{percent:g}" for percent in PERCENTILES))
    rows = [
        (
            f"{BY_NAME[name].title} [{found.unit}]",
            *(_figure(found.stats.get(stat), name) for stat in stats),
            str(found.count),
        )
        for name, found in point.distributions.items()
    ]
    return Table(f"{point.label}: distributions", ("metric", *stats, "values"), tuple(rows))


def totals_table(point: Point) -> Table:
    """One load: every metric with one figure, and its 95% interval."""
    rows = [
        (f"{BY_NAME[name].title} [{BY_NAME[name].unit}]", _figure(found, name), _interval(found))
        for name, found in point.totals.items()
    ]
    return Table(f"{point.label}: totals", ("metric", "value", "95% interval"), tuple(rows))


def estimate(point: Point, metric: str, stat: str | None) -> Estimate | None:
    """A total, or with ``stat`` one of a distribution's figures; None if not measured."""
    if stat is None:
        return point.totals.get(metric)
    found = point.distributions.get(metric)
    return found.stats.get(stat) if found else None


def facts(report: BenchReport) -> Iterator[tuple[str, str]]:
    """What was measured how, where and when, as pairs of name and text."""
    target, machine, stop = report.target, report.machine, report.stop
    yield "target", f"{target.name}, {target.protocol}, {target.url or 'in this process'}"
    if target.server:
        yield "server", target.server
    yield "workload", _workload(report)
    if report.found_rate:
        yield "searched", report.found_rate.search.described
    elif stop.requests:
        yield "measured", f"{stop.requests} requests after {stop.warmup_requests} of warm-up"
    else:
        yield "measured", f"{stop.duration:g} s after {stop.warmup:g} s of warm-up"
    yield "repeats", str(max(len(point.repeats) for point in report.points))
    processes = max(one.client.processes for point in report.points for one in point.repeats)
    if processes > 1:
        yield "client", f"{processes} processes"
    for name, objective in report.objectives.items():
        limits = objective.model_dump(exclude_none=True)
        text = ", ".join(f"{key.removesuffix('_ms').upper()} {v:g} ms" for key, v in limits.items())
        yield f"SLO {name}".strip(), text
    yield "tokens", f"output counted by {report.tokens_counted_by}, prompts in {report.prompt_unit}"
    memory = f"{machine.memory_bytes / 2**30:.0f} GiB"
    yield "client machine", f"{machine.cpu}, {machine.cores} cores, {memory}, {machine.system}"
    yield "made", f"{report.created} by toolkit {report.toolkit_version}, seed {report.seed}"


def number(value: float) -> str:
    """Three significant digits, and never an exponent."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 1:
        return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return f"{value:.3f}" if size >= 0.1 or not size else f"{value:.3g}"


def _workload(report: BenchReport) -> str:
    settings = report.workload.model_dump(mode="json", exclude={"type"}, exclude_none=True)
    parts = [f"{key} {_setting(value)}" for key, value in settings.items() if value != ""]
    return f"{report.workload.type}: {', '.join(parts)}"


def _setting(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    if value.get("distribution") == "fixed":
        return str(value["tokens"])
    rest = ", ".join(f"{key} {item}" for key, item in value.items() if key != "distribution")
    return f"{value.get('distribution')}({rest})"


def _headed(title: str, metric: str) -> str:
    return f"{title} ms" if BY_NAME[metric].unit == "ms" else title


def _figure(found: Estimate | None, metric: str) -> str:
    if found is None:
        return _MISSING
    return f"{found.value:.1%}" if BY_NAME[metric].unit == "share" else number(found.value)


def _interval(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return _MISSING
    return f"{number(found.low)} to {number(found.high)}"


def markdown(table: Table) -> str:
    """The table in Markdown."""
    lines: Sequence[str] = [
        _line(table.columns),
        _line(["---", *["---:"] * (len(table.columns) - 1)]),
        *map(_line, table.rows),
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
