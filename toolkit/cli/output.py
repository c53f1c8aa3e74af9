"""What commands print: tables for people, JSON for programs; both on stdout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import typer


def print_json(value: Any) -> None:
    """``value`` (JSON, or a pydantic model) as indented JSON on stdout, never wrapped."""
    dump = getattr(value, "model_dump", None)
    plain = _finite(dump(mode="json") if dump else value)
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    if any("\ud800" <= each <= "\udfff" for each in text):  # a file name that is no Unicode
        text = json.dumps(plain, indent=2)
    typer.echo(text)


def _finite(value: Any) -> Any:
    """Null in place of NaN and infinities, for which JSON has no word."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: str = ""
) -> None:
    """A table on stdout; ``right`` names the columns (comma-separated) that hold numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", title_style="bold")
    numbers = set(right.split(","))
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        # A pipe has no width: whoever reads it wants whole cells.
        console = Console(highlight=False, width=200)
    console.print(table)
