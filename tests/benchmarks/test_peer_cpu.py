"""A server's processor time is that of all its processes, and of nobody else's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))

import peer_cpu

TICKS = os.sysconf("SC_CLK_TCK")


def process(proc: Path, number: int, parent: int, user: int, system: int, name: str = "a") -> None:
    folder = proc / str(number)
    folder.mkdir()
    before = f"{number} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0"
    (folder / "stat").write_text(f"{before} {user} {system} 7 7 20 0 1 0 5 0 0\n")


def test_adds_up_the_whole_tree(tmp_path: Path) -> None:
    process(tmp_path, 1, 0, 1000, 1000)
    process(tmp_path, 10, 1, 100, 10)
    process(tmp_path, 11, 10, 200, 20, name="with ) and (spaces")
    process(tmp_path, 12, 11, 400, 40)
    process(tmp_path, 20, 1, 8000, 8000)
    (tmp_path / "meminfo").write_text("")
    assert peer_cpu.cpu_seconds(10, tmp_path) * TICKS == 770


def test_a_process_that_is_gone_has_none(tmp_path: Path) -> None:
    process(tmp_path, 1, 0, 5, 5)
    (tmp_path / "30").mkdir()
    assert peer_cpu.cpu_seconds(30, tmp_path) == 0
