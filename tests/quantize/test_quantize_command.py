"""``toolkit quantize``: results, refusals and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.cli.app import run

WIDE = (
    "--accept-perplexity-increase", "2", "--accept-kl-divergence", "2",
    "--accept-top1-agreement", "0.1",
)  # fmt: skip
FEW = ("--samples", "12", "--max-length", "96")


def test_the_report_as_json(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["quantize", str(small_checkpoint), str(out), *WIDE, *FEW]
    assert run([*arguments, "--exclude", "down_proj", "--json", "--quiet"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["path"] == str(out)
    assert answer["report"]["weights"] == "fp8"
    assert answer["report"]["quantized_layers"] == 24
    assert (out / "hf_quant_config.json").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["out"]

    assert run([*arguments, "--quiet"]) == 2
    assert "--force" in capsys.readouterr().err
    assert run([*arguments, "--quiet", "--force", "--weights", "int8_sq"]) == 0
    shown = capsys.readouterr().out
    assert "int8_sq" in shown
    assert "top-1 agreement" in shown


def test_a_failing_gate_is_exit_code_5_and_leaves_nothing(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quantize", str(small_checkpoint), str(tmp_path / "out"), *FEW, "--quiet"]
    assert run([*command, "--accept-kl-divergence", "0.0000001"]) == 5
    assert "KL divergence" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_tensorrt_llm_checkpoint(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["quantize", str(small_checkpoint), str(out), *FEW, "--quiet", "--tensorrt-llm"]
    assert run([*command, "--accept-kl-divergence", "0.0000001"]) == 5
    assert list(tmp_path.iterdir()) == []
    capsys.readouterr()
    assert run([*command, *WIDE, "--tensor", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["path"] == str(out)
    assert answer["report"]["gate"]["tokens"] > 100
    assert (out / "rank1.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--weights", "fp9"], "--weights"),
        (["--weights", "int4_awq", "--block-size", "64"], "does not divide the layer widths 96"),
        (["--samples", "0"], "--samples"),
        (["--tensor", "2"], "--tensorrt-llm"),
        (["--exclude", "dwn_proj"], "did you mean down_proj"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    small_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
) -> None:
    command = ["quantize", str(small_checkpoint), str(tmp_path / "out"), "--quiet"]
    assert run([*command, *arguments]) == 2
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
