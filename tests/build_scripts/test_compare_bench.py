"""The regression gate: what counts as worse, and what is not compared."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import SCRIPTS

from toolkit.bench.metrics import PERCENTILES, SAMPLED, TOTALS


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compare_bench", SCRIPTS / "ci/compare_bench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["compare_bench"] = module
    spec.loader.exec_module(module)
    return module


def estimate(value: float, spread: float | None = None) -> dict[str, Any]:
    low, high = (None, None) if spread is None else (value - spread, value + spread)
    return {"value": value, "low": low, "high": high, "method": "none"}


def report(ttft: float, throughput: float, spread: float | None = None) -> dict[str, Any]:
    return {
        "machine": {"cpu": "x", "cores": 2},
        "workload": {"name": "smoke"},
        "points": [
            {
                "label": "8 users",
                "distributions": {"ttft": {"stats": {"p50": estimate(ttft, spread)}}},
                "totals": {"output_throughput": estimate(throughput, spread)},
            }
        ],
    }


def judge(
    compare: ModuleType, tmp_path: Path, old: dict[str, Any], new: dict[str, Any], *words: str
) -> int:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, content in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(content))
    code: int = compare.main([*map(str, paths), *words])
    return code


def test_figures_exist_in_reports(compare: ModuleType) -> None:
    sampled = {f"{m.name}.p{p:g}": m.unit for m in SAMPLED for p in PERCENTILES}
    known = {**sampled, **{total.name: None for total in TOTALS}}
    assert {name for name, _, _ in compare.FIGURES} <= set(known)
    for name, unit, _ in compare.FIGURES:
        assert known[name] in (None, unit)


def test_equal_is_fine(compare: ModuleType, tmp_path: Path) -> None:
    assert judge(compare, tmp_path, report(100, 50), report(100, 50)) == 0


@pytest.mark.parametrize(
    ("ttft", "throughput", "code"),
    [(120, 50, 5), (105, 50, 0), (80, 50, 0), (100, 40, 5), (100, 48, 0), (100, 90, 0)],
)
def test_worse_beyond_the_limit_fails(
    compare: ModuleType, tmp_path: Path, ttft: float, throughput: float, code: int
) -> None:
    assert judge(compare, tmp_path, report(100, 50), report(ttft, throughput)) == code


def test_limit_can_be_chosen(compare: ModuleType, tmp_path: Path) -> None:
    old, new = report(100, 50), report(120, 50)
    assert judge(compare, tmp_path, old, new, "--max-regression", "0.3") == 0


def test_chance_is_no_regression(compare: ModuleType, tmp_path: Path) -> None:
    assert judge(compare, tmp_path, report(100, 50, 30), report(120, 50, 30)) == 0
    assert judge(compare, tmp_path, report(100, 50, 2), report(120, 50, 2)) == 5


def test_other_machines_and_workloads_are_not_compared(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = report(900, 1)
    elsewhere["machine"]["cores"] = 64
    assert judge(compare, tmp_path, report(100, 50), elsewhere) == 0
    assert "cores" in capsys.readouterr().out
    other = report(900, 1)
    other["workload"]["name"] = "chat"
    assert judge(compare, tmp_path, report(100, 50), other) == 0


def test_no_baseline_is_said(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([str(tmp_path / "none.json"), str(tmp_path / "x.json")]) == 0
    assert "no baseline" in capsys.readouterr().out


def test_loads_that_only_one_report_has_are_left_out(compare: ModuleType, tmp_path: Path) -> None:
    new = report(900, 1)
    new["points"][0]["label"] = "16 users"
    assert judge(compare, tmp_path, report(100, 50), new) == 0


def test_reports_without_a_load_in_common_are_told_apart(
    compare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = report(10, 500)
    other["points"][0]["label"] = "64 users"
    assert judge(compare, tmp_path, report(10, 500), other) == 0
    assert "not compared with the baseline: no load" in capsys.readouterr().out
    more = report(10, 500)
    more["points"].append({**report(10, 500)["points"][0], "label": "64 users"})
    assert judge(compare, tmp_path, report(10, 500), more) == 0
    assert "64 users: not in the baseline" in capsys.readouterr().out
