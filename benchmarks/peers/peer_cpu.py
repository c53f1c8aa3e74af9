"""Processor time of a server: a process and all that it started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(root: int, proc: Path = Path("/proc")) -> float:
    """User and system seconds so far of process ``root`` and its living descendants.

    Args:
        root: Process id.
        proc: Where the kernel tells (proc(5): fields 4, 14 and 15 of ``stat``).
    """
    parents: dict[int, int] = {}
    spent: dict[int, int] = {}
    for number, fields in _stats(proc):
        parents[number] = int(fields[1])
        spent[number] = int(fields[11]) + int(fields[12])
    return sum(t for n, t in spent.items() if _descends(n, root, parents)) / _TICKS


def _stats(proc: Path) -> Iterator[tuple[int, list[str]]]:
    """Each process's fields of ``stat`` after the name, which may hold spaces and brackets."""
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue
            yield int(folder.name), text.rpartition(")")[2].split()


def _descends(number: int, root: int, parents: dict[int, int]) -> bool:
    while number in parents:
        if number == root:
            return True
        number = parents[number]
    return False
