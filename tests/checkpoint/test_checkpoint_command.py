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


def test_verify_lists_every_fault_and_exits_with_5(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toolkit("verify", checkpoint, "--deep", "-q") == 0
    assert "sound" in capsys.readouterr().out
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / WEIGHTS).write_bytes((checkpoint / WEIGHTS).read_bytes()[:-9])
    assert toolkit("verify", checkpoint, "-q", "--json") == 5
    output = capsys.readouterr()
    messages = [problem["message"] for problem in json.loads(output.out)["problems"]]
    assert any("truncated" in message for message in messages)
    assert any("no tokenizer" in message for message in messages)
    assert "Traceback" not in output.err
    assert toolkit("inspect", checkpoint) == 5
    assert toolkit("verify", checkpoint / "nowhere") == 2
    assert toolkit("inspect", checkpoint / "nowhere") == 2


def test_archives_are_kept_and_told_from_other_files(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "a.tar"
    work = ("--workspace", tmp_path / "ws", "-q")
    assert toolkit("pack", checkpoint, archive, *work) == 0
    assert toolkit("pack", checkpoint, archive, *work) == 2
    assert "--force" in capsys.readouterr().err
    assert toolkit("pack", checkpoint, archive, *work, "--force") == 0
    other = tmp_path / "deploy.yaml"
    other.write_text("name: chat\n" * 100)
    assert toolkit("unpack", other, tmp_path / "there") == 2
    assert "no archive" in capsys.readouterr().err
    assert toolkit("unpack", tmp_path / "nope.tar", tmp_path / "there") == 2
    assert "toolkit checkpoint pack" in capsys.readouterr().err
    assert toolkit("unpack", archive, checkpoint) == 2
    assert "hint" in capsys.readouterr().err


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
