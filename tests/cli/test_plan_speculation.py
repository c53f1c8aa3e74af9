"""What ``toolkit plan`` says of drafts, reuse and several GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_files import write_config

from toolkit.cli.app import run

FILE = """\
name: chat
model: {source: hf://meta-llama/Llama-3.1-8B-Instruct}
engine: {runtime: RUNTIME}
serving: {gpu: H100}
"""
NGRAM = ["--set", "engine.speculation={method: ngram, max_draft_len: 4}"]


def words(folder: Path, runtime: str = "pytorch") -> list[str]:
    (folder / "d.yaml").write_text(FILE.replace("RUNTIME", runtime))
    store = ["--workspace", str(folder / "store")]
    return ["plan", str(folder / "d.yaml"), "--model-config", str(write_config(folder)), *store]


def test_drafts_that_are_not_counted_are_said_not_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*more: str) -> str:
        assert run([*words(tmp_path), *more]) == 0
        return capsys.readouterr().out

    assert "--acceptance" not in printed()
    assert "--acceptance changes nothing" in printed("--acceptance", "0.8")
    assert "Drafts are not counted: --acceptance" in printed(*NGRAM)
    assert "--acceptance" not in printed(*NGRAM, "--acceptance", "0.8")


def test_reuse_that_the_file_turns_off_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    off = ["--set", "engine.kv_cache.reuse=false"]
    assert run([*words(tmp_path), *off]) == 0
    assert run([*words(tmp_path), *off, "--reuse", "0.5"]) == 2
    assert "engine.kv_cache.reuse" in capsys.readouterr().err


def test_a_tree_of_drafts_is_told_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = ["--set", "engine.speculation={method: lookahead, ngram_size: 4}"]
    asked = [*words(tmp_path, "tensorrt"), *tree, "--acceptance", "0.5"]
    assert run([*asked, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)["speed"]["speculation"]
    # (4 - 2) + (4 - 1 + 4) x (4 - 1) are checked, of which three can be accepted.
    assert (told["drafts"], told["checked"]) == (3, 23)
    assert told["tokens_per_step"] == pytest.approx(1 + 0.5 + 0.25 + 0.125)
    assert run(asked) == 0
    said = capsys.readouterr().out
    assert "23 drafts in a tree 3 deep, each level accepted with 50%, make 1.88 tokens" in said


def test_what_each_of_several_gpus_does_is_not_told_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words(tmp_path)) == 0
    assert "Prefill of 1000 tokens: 14" in capsys.readouterr().out
    two = ["--set", "engine.parallelism.tensor=2", "--set", "serving.gpus=[0, 1]"]
    assert run([*words(tmp_path), *two]) == 0
    printed = capsys.readouterr().out
    assert "Prefill of 1000 tokens, on each GPU: 7." in printed
    assert "Decode step of 8, on each GPU: 7." in printed


@pytest.mark.parametrize("option", ["--slo-ttft-ms", "--slo-tpot-ms", "--prices"])
def test_what_only_a_search_asks_for_needs_a_rate(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words(tmp_path), option, "50"]) == 2
    said = capsys.readouterr().err
    assert option in said
    assert "--rate" in said
