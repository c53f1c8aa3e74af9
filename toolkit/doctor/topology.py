"""How GPUs are linked: the matrices of ``nvidia-smi topo``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

Links: TypeAlias = Mapping[tuple[int, int], str]

LINKS = {
    "NV": "NVLink",
    "PIX": "one PCIe switch",
    "PXB": "several PCIe switches",
    "PHB": "a PCIe host bridge",
    "NODE": "PCIe host bridges of one NUMA node",
    "SYS": "the link between processor sockets",
}
"""Kinds of links, the fastest first (legend of ``nvidia-smi topo -m``)."""

_GPU = re.compile(r"GPU(\d+)$")
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def parse_matrix(text: str) -> dict[tuple[int, int], str]:
    """The cell for each pair of GPUs, lower number first; empty if ``text`` holds no matrix."""
    lines = [_STYLE.sub("", line) for line in text.splitlines()]
    columns: list[int | None] = []
    found: dict[tuple[int, int], str] = {}
    for line in lines:
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        if not cells:
            continue
        name = _GPU.match(cells[0])
        if not columns and (name or (len(cells) > 1 and _GPU.match(cells[1]))):
            heads = cells if name else cells[1:]
            columns = [int(match[1]) if (match := _GPU.match(cell)) else None for cell in heads]
        elif name and columns:
            row = int(name[1])
            for column, cell in zip(columns, cells[1:], strict=False):
                if column is not None and row < column:
                    found[row, column] = cell
    return found


def kind(cell: str) -> str:
    """``NV18`` is ``NV``; the others are kinds themselves."""
    return "NV" if re.fullmatch(r"NV\d+", cell) else cell


def slowest(links: Links, gpus: Sequence[int]) -> tuple[str, tuple[int, int]] | None:
    """The slowest kind of link among ``gpus`` and a pair that has it; None if none is known."""
    order = list(LINKS)
    known = [
        (order.index(kind(links[pair])), pair)
        for pair in combinations(sorted(gpus), 2)
        if kind(links.get(pair, "")) in order
    ]
    if not known:
        return None
    rank, pair = max(known)
    return order[rank], pair
