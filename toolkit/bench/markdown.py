"""The report as Markdown."""

from __future__ import annotations

from toolkit.bench import rows
from toolkit.bench.report import BenchReport
from toolkit.bench.sweep_view import search_table


def render_markdown(report: BenchReport) -> str:
    """The whole report; latencies are in milliseconds from the intended start of a request."""
    title = f"# {report.title}{' (partial: interrupted)' if report.partial else ''}"
    parts = [title, "\n".join(f"- **{name}**: {text}" for name, text in rows.facts(report))]
    if report.notes:
        parts.append("\n".join(f"> {note}\n>" for note in report.notes).removesuffix("\n>"))
    if report.found_rate:
        table = search_table(report.found_rate)
        parts += [f"**{report.found_rate.sentence}**", f"## {table.title}", rows.markdown(table)]
    parts += ["## Summary", rows.markdown(rows.summary_table(report))]
    for point in report.points:
        parts += [
            f"## {point.label}",
            rows.markdown(rows.detail_table(point)),
            rows.markdown(rows.totals_table(point)),
        ]
    return "\n\n".join(parts) + "\n"
