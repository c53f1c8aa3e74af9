"""The ablation's tables and sentences, for Markdown, HTML and the terminal alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolkit.bench.ablation.claims import claims_table
from toolkit.bench.ablation.figures import BY_NAME
from toolkit.bench.ablation.report import AblationReport, Against, Comparison, LoadResults
from toolkit.bench.ablation.words import is_told, times_text
from toolkit.bench.report import Estimate
from toolkit.bench.rows import Table, number

_MISSING = "-"
_RATIOS = ("e2e.p50", "ttft.p50", "ttft_later.p50", "itl.p50", "output_throughput", "goodput")
_FIGURES = (
    "output_throughput",
    "goodput",
    "e2e.p50",
    "ttft.p50",
    "ttft_later.p50",
    "itl.p50",
    "itl.p95",
    "tpot.p50",
    "kv_reuse",
    "draft_acceptance",
    "error_share",
)
_TOLD = ("e2e.p50", "ttft_later.p50", "itl.p50", "output_throughput")


def figures_table(report: AblationReport, load: LoadResults) -> Table:
    """What was measured: means over the rounds."""
    names = [name for name in _FIGURES if any(name in one.figures for one in load.results)]
    rows = [
        (
            report.facts(one.rung).title,
            *(_figure(one.figures.get(name), name) for name in names),
        )
        for one in load.results
    ]
    heads = tuple(_head(name) for name in names)
    return Table(f"{load.label}: figures", ("rung", *heads), tuple(rows))


def first_table(report: AblationReport, load: LoadResults) -> Table:
    """Every rung against the first."""
    base = report.rungs[0].title
    keys = [(rung.key, rung.title, "") for rung in report.rungs[1:]]
    return _ratios(report, load, f"times better than {base}", "first", keys, "rung")


def steps_table(report: AblationReport, load: LoadResults) -> Table:
    """Every step against the one before it."""
    keys = [(rung.key, rung.title, "") for rung in report.rungs[1:] if rung.is_step]
    return _ratios(report, load, "each step: times better than before it", "previous", keys, "step")


def removals_table(report: AblationReport, load: LoadResults) -> Table:
    """Full against full without each feature."""
    full = next((rung.key for rung in report.rungs if rung.is_full), "")
    keys = [(full, one.title, one.feature) for one in report.removals]
    title = "in full: times better than without it"
    return _ratios(report, load, title, "removed", keys, "feature")


def sentences(report: AblationReport, load: LoadResults) -> Iterator[str]:
    """What each step did, and for one that did not help, where it is known to."""
    for rung in report.rungs[1:]:
        if rung.is_step:
            yield from _sentence(report, load, rung.key)


def _sentence(report: AblationReport, load: LoadResults, key: str) -> Iterator[str]:
    rung, told, helped = report.facts(key), [], False
    base = ""
    for name in _TOLD:
        found = report.find(load.label, key, "previous", name)
        if found:
            base = found.base
            told.append(f"{BY_NAME[name].title} {found.words}")
            helped |= found.times.value > 1 and (is_told(found.times) or found.rounds == 1)
    if not told:
        return
    others = f", adding {', '.join(rung.adds)}" if len(rung.adds) > 1 else ""
    against = f"(against {report.facts(base).title}{others})"
    text = f"{rung.title} {against}: {'; '.join(told)}."
    yield text if helped or not rung.pays else f"{text} {rung.pays}"


def tables(report: AblationReport, load: LoadResults) -> Iterator[Table]:
    """All that have rows."""
    made = (
        first_table(report, load),
        claims_table(report, load),
        steps_table(report, load),
        removals_table(report, load),
        figures_table(report, load),
    )
    return (table for table in made if table.rows)


def _ratios(
    report: AblationReport,
    load: LoadResults,
    title: str,
    against: Against,
    keys: Sequence[tuple[str, str, str]],
    first: str,
) -> Table:
    rows = [
        (text, [report.find(load.label, key, against, name, feature) for name in _RATIOS])
        for key, text, feature in keys
    ]
    present = [at for at, _ in enumerate(_RATIOS) if any(found[at] for _, found in rows)]
    cells = tuple(
        (text, *(_times(found[at]) for at in present)) for text, found in rows if any(found)
    )
    heads = (BY_NAME[_RATIOS[at]].title for at in present)
    return Table(f"{load.label}, {title}", (first, *heads), cells)


def _times(found: Comparison | None) -> str:
    return times_text(found.times) if found else _MISSING


def _figure(found: Estimate | None, name: str) -> str:
    if found is None:
        return _MISSING
    return f"{found.value:.1%}" if BY_NAME[name].unit == "share" else number(found.value)


def _head(name: str) -> str:
    metric = BY_NAME[name]
    return f"{metric.title} ms" if metric.unit == "ms" else metric.title
