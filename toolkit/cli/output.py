"""What commands print: tables for people, JSON for programs; both on stdout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


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


def counted(count: int, what: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: str = ""
) -> None:
    """A table on stdout; ``right`` names the columns (comma-separated) that hold numbers.

    On a terminal that is too narrow for it, each row becomes a block of lines. A pipe has no
    width: whoever reads it wants whole cells.
    """
    from rich.console import Console

    texts = [[str(cell) for cell in row] for row in rows]
    widths = _widths(columns, texts)
    natural = sum(widths) + 3 * len(widths) + 1
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(natural, 80))
    if title:
        console.print(title, style="bold", soft_wrap=True, markup=False)
    # Only the widest cell may be folded, and only to what can still be read.
    if natural - max(widths) + min(max(widths), _FOLDED) > console.width:
        _print_blocks(console, columns, texts)
    else:
        _print_grid(console, columns, texts, set(right.split(",")))


_FOLDED = 24


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    lines = (
        [line for text in column for line in (text.splitlines() or [""])]
        for column in zip(columns, *rows, strict=True)
    )
    return [max(map(cell_len, column)) for column in lines]


def _print_grid(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[str]
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _print_blocks(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The first cell heads its row's block; empty cells are left out."""
    from rich.text import Text

    wide = max(map(len, columns[1:]), default=0)
    for head, *cells in rows:
        console.print(Text(head, style="bold"), soft_wrap=True)
        for column, cell in zip(columns[1:], cells, strict=True):
            if cell:
                console.print(Text(f"  {column:{wide}}  {cell}"), soft_wrap=True)
