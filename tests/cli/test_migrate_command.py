"""``toolkit migrate`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_files import write_config

from toolkit.cli.app import run

FILE = """\
name: chat
model: {source: hf://meta-llama/Llama-3.1-8B-Instruct}
engine:
  runtime: tensorrt  # compiled
  speculation: {method: medusa, source: ./heads}
serving: {gpu: H100}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "d.yaml"
    path.write_text(FILE)
    return path


def test_the_new_file_goes_to_stdout_and_the_report_to_stderr(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["migrate", str(file), "--to", "1.3.0rc27"]) == 0
    out, err = capsys.readouterr()
    assert "runtime: pytorch  # compiled" in out
    assert "medusa" not in out
    assert "NO COUNTERPART: engine.speculation" in err
    assert "eagle3" in err
    assert "serving.image" in err
    assert "MEANS SOMETHING ELSE: engine.cuda_graphs.enabled: absent" in err
    assert file.read_text() == FILE


def test_the_new_file_is_written_and_can_be_planned(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, config = file.with_name("new.yaml"), write_config(file.parent)
    words = ["migrate", str(file), "--to", "1.2.1", "--output", str(new)]
    assert run([*words, "--model-config", str(config), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["comments_kept"]
    assert {change["field"] for change in told["changes"]} == {
        "engine.runtime",
        "engine.release",
        "engine.speculation",
    }
    assert [each["field"] for each in told["meanings"]] == ["engine.cuda_graphs.enabled"]
    assert new.read_text() == told["text"]
    assert run(["plan", str(new), "--model-config", str(config)]) == 0
    assert run(words) == 2  # it is there already


def test_a_result_that_cannot_work_is_refused(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(file.parent, max_position_embeddings=1024)
    words = ["migrate", str(file), "--to", "1.2.1", "--model-config", str(config)]
    assert run(words) == 2
    assert "max_seq_len" in capsys.readouterr().err
