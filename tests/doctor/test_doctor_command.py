"""``toolkit doctor`` as a user runs it, on whatever machine this is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDS_GPU = """\
name: chat
model: {source: hf://meta-llama/Llama-3.1-8B-Instruct@main}
engine: {runtime: pytorch}
serving: {gpus: [1000], launcher: container, ports: {http: 0, grpc: 0, metrics: 0}}
"""


def doctor(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "toolkit", "doctor", *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_TOKEN": "hf_very_secret"},
        capture_output=True,
        text=True,
    )


def test_machine_alone_never_fails(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "runtimes that can serve here:" in done.stdout
    assert "hf_very_secret" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_missing_need_is_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(NEEDS_GPU)
    done = doctor(tmp_path, "d.yaml", "--json")
    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert told["deployment"] == "chat"
    assert told["ok"] is False
    failed = [each for each in told["checks"] if each["status"] == "fail"]
    assert failed
    assert all(each["mend"] for each in failed)
    assert "cannot serve chat" in done.stderr


def test_deployment_that_is_wrong_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text("name: chat\n")
    assert doctor(tmp_path, "d.yaml").returncode == 2


@pytest.mark.parametrize("word", ["--json", "--workspace"])
def test_options(tmp_path: Path, word: str) -> None:
    words = (word,) if word == "--json" else (word, str(tmp_path / "elsewhere"))
    done = doctor(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    if word == "--json":
        assert json.loads(done.stdout)["runtimes"][-1] == "openvino"
    else:
        assert "elsewhere" in done.stdout
