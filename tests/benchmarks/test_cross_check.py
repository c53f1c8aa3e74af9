"""The cross-check with AIPerf: cores of their own, and each round compared with itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import aiperf_cross_check as cross_check
from aiperf_files import Figures


def seen_by_a_child() -> set[int]:
    asked = "import os; print(*os.sched_getaffinity(0))"
    done = subprocess.run([sys.executable, "-c", asked], stdout=subprocess.PIPE, check=True)
    return set(map(int, done.stdout.split()))


def with_cores(monkeypatch: pytest.MonkeyPatch, cores: set[int]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)


@pytest.mark.parametrize("cores", [{0, 1}, {2, 3, 5}, set(range(16))])
def test_all_cores_are_shared_out_and_none_twice(
    cores: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cores(monkeypatch, cores)
    servers, clients = cross_check.shared_out(apart=True)
    assert servers
    assert clients
    assert servers | clients == cores
    assert not servers & clients


def test_one_core_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cores(monkeypatch, {4})
    assert cross_check.shared_out(apart=True) == ({4}, {4})


def test_they_share_all_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cores(monkeypatch, {0, 1})
    assert cross_check.shared_out(apart=False) == ({0, 1}, {0, 1})


def test_what_is_started_meanwhile_keeps_to_its_cores() -> None:
    before = os.sched_getaffinity(0)
    chosen = {min(before)}
    with cross_check.on_cores(chosen):
        assert seen_by_a_child() == chosen
    assert os.sched_getaffinity(0) == before
    assert seen_by_a_child() == before


def test_cores_come_back_after_a_failure() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(KeyError), cross_check.on_cores({min(before)}):
        raise KeyError
    assert os.sched_getaffinity(0) == before


def a_round(number: int, ours: float, theirs: float) -> list[cross_check.Run]:
    """Both clients' run; the second one of the round comes first in every other round."""
    made = [
        cross_check.Run(
            "gateway", 8, client, number, Figures(100, ttft, 20, 900, 24, 800), 1.0, 0.0
        )
        for client, ttft in (("toolkit", ours), ("AIPerf", theirs))
    ]
    return made if number % 2 == 0 else made[::-1]


def test_a_round_is_compared_with_itself_only() -> None:
    drifting = [*a_round(0, 101, 100), *a_round(1, 150, 151), *a_round(2, 204, 200)]
    found = cross_check.apart(drifting, "gateway", 8)
    assert found == pytest.approx([0, 0.01, 0, 0])
    assert "agree within 5%: at most 1.0% apart" in cross_check.verdict(drifting)


def test_what_most_rounds_say_is_said() -> None:
    off = [*a_round(0, 108, 100), *a_round(1, 109, 100), *a_round(2, 100, 100)]
    assert "DO NOT agree within 5%: at most 8.0% apart" in cross_check.verdict(off)
    assert any("+8.0%" in row for row in cross_check.table(off))
