"""Servers and clients of the cross-check get cores of their own, whatever AIPerf takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import aiperf_cross_check as cross_check


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
