"""Write a report's files and print its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from toolkit.cli.output import print_json, print_table


def show(report: Any, folder: Path | None, as_json: bool) -> None:
    """Write the report into ``folder``, if there is one, and print it."""
    from toolkit.bench.files import write_report
    from toolkit.bench.rows import summary_table

    written = write_report(report, folder) if folder else ()
    if as_json:
        print_json(report)
        return
    table = summary_table(report)
    partial = " (partial: interrupted)" if report.partial else ""
    right = ",".join(table.columns[1:])
    print_table(f"{report.title}{partial}", table.columns, table.rows, right=right)
    if report.found_rate:
        _show_search(report.found_rate)
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    if "in SLO" in table.columns:
        typer.echo(f"in SLO: within {_limits(report)}")
    if written:
        typer.echo(f"report: {written[-1]}")


def _show_search(found: Any) -> None:
    from toolkit.bench.sweep_view import search_table

    table = search_table(found)
    print_table(table.title, table.columns, table.rows, right=",".join(table.columns[2:]))
    typer.echo(found.sentence)


def _limits(report: Any) -> str:
    """The targets that requests of this workload are held against."""
    chosen = getattr(report.workload, "request_class", None) or ""
    objective = report.objectives.get(chosen) or report.objectives[""]
    limits = objective.model_dump(exclude_none=True)
    return ", ".join(f"{key.removesuffix('_ms').upper()} {v:g} ms" for key, v in limits.items())
