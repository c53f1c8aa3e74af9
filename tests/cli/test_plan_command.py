"""``toolkit plan`` as a user meets it: output, exit codes, no weights and no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_files import write_config

from toolkit.cli.app import run

FILE = """\
name: chat
model: {source: hf://meta-llama/Llama-3.1-8B-Instruct}
quantization: {weights: fp8, kv_cache: fp8}
engine: {runtime: tensorrt}
serving: {gpu: H100}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    path = tmp_path / "d.yaml"
    path.write_text(FILE)
    return path


def test_a_plan_is_printed_whole(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(file.parent)
    before = set(file.parent.iterdir())
    assert run(["plan", str(file), "--model-config", str(config)]) == 0
    assert set(file.parent.iterdir()) == before
    told = capsys.readouterr().out
    for word in ("TensorRT-LLM 1.2.1", "tritonserver:", "fp8 weights", "trtllm-build",
                 "KV cache", "requests of max_seq_len"):  # fmt: skip
        assert word in told


def test_a_plan_is_json_for_programs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(file.parent)
    words = ["plan", str(file), "--model-config", str(config), "--gpu", "L4", "--json"]
    assert run([*words, "--set", "engine.runtime=pytorch"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["runtime"], told["gpu"], told["commands"]) == ("pytorch", "L4", [])
    assert told["arguments"]["max_seq_len"] == 4096
    assert told["memory"]["kv_tokens"] > 4096
    assert sum(line["bytes"] for line in told["memory"]["fixed"]) > 8e9


def test_what_cannot_work_is_exit_code_2(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(file.parent)
    assert run(["plan", str(file), "--model-config", str(config), "--gpu", "A100-80"]) == 2
    assert "what would work" in capsys.readouterr().err


def test_without_a_config_the_error_says_how_to_give_one(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(file), "--offline"]) == 3
    assert "--model-config" in capsys.readouterr().err
    assert run(["plan", str(file), "--set", "model.source=sample:smollm2-135m"]) == 2
    assert "--model-config" in capsys.readouterr().err


def test_a_checkpoint_s_own_config_is_found(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = file.parent / "model"
    model.mkdir()
    write_config(model).rename(model / "config.json")
    assert run(["plan", str(file), "--set", "model.source=./model", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpu"] == "H100"


def test_a_draft_is_held_against_its_target(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(file.parent)
    draft = write_config(file.parent, "1b", vocab_size=32000)
    words = ["plan", str(file), "--model-config", str(config), "--draft-config", str(draft)]
    words += ["--set", "engine.speculation={method: draft_model, draft: {source: ./draft}}"]
    assert run(words) == 2
    assert "vocabulary" in capsys.readouterr().err


def test_a_verdict_without_a_gpu_says_what_was_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.pipeline.planning.detected_gpu", lambda: None)
    file = tmp_path / "d.yaml"
    file.write_text(FILE.replace("serving: {gpu: H100}\n", ""))
    config = write_config(tmp_path)
    assert run(["plan", str(file), "--model-config", str(config)]) == 0
    assert "memory was not checked" in capsys.readouterr().out.splitlines()[0]
    assert run(["plan", str(file), "--model-config", str(config), "--gpu", "H100"]) == 0
    assert "memory was not checked" not in capsys.readouterr().out
