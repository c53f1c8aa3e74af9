from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.cli.app import run

WEIGHTS = "model.safetensors"


def toolkit(*arguments: object) -> int:
    return run(["checkpoint", *map(str, arguments)])


def test_fetch_prints_the_directory(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toolkit("fetch", checkpoint, "--workspace", tmp_path / "ws", "-q") == 0
    path = Path(capsys.readouterr().out.strip())
    assert (path / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    assert toolkit("fetch", checkpoint, "--workspace", tmp_path / "ws", "-q", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["reused"] is True
    assert answer["path"] == str(path)


def test_inspect_as_json_and_as_a_table(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toolkit("inspect", checkpoint, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["architecture"]["family"] == "llama"
    assert answer["kv_bytes_per_token"]["16 bit"] == 128
    assert answer["by_dtype"]["BF16"]["elements"] == answer["parameters"]
    assert toolkit("inspect", checkpoint) == 0
    table = capsys.readouterr().out
    assert f"{answer['parameters']:,}" in table
    assert "BF16" in table


def test_verify_lists_every_fault_and_exits_with_2(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toolkit("verify", checkpoint, "--deep", "-q") == 0
    assert "sound" in capsys.readouterr().out
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / WEIGHTS).write_bytes((checkpoint / WEIGHTS).read_bytes()[:-9])
    assert toolkit("verify", checkpoint, "-q", "--json") == 2
    output = capsys.readouterr()
    messages = [problem["message"] for problem in json.loads(output.out)["problems"]]
    assert any("truncated" in message for message in messages)
    assert any("no tokenizer" in message for message in messages)
    assert "Traceback" not in output.err


def test_pack_and_unpack(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, there = tmp_path / "tiny.tar", tmp_path / "there"
    assert toolkit("pack", checkpoint, archive, "--workspace", tmp_path / "ws", "-q") == 0
    assert "sha256" in capsys.readouterr().out
    assert toolkit("unpack", archive, there, "-q") == 0
    assert (there / WEIGHTS).read_bytes() == (checkpoint / WEIGHTS).read_bytes()
    assert toolkit("unpack", archive, there, "-q") == 2
    assert "not empty" in capsys.readouterr().err


def test_an_unknown_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert toolkit("fetch", "acme/tiny", "--workspace", tmp_path / "ws") == 2
    assert "hf://acme/tiny" in capsys.readouterr().err
