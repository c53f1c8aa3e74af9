"""References of the checkpoint are a help: a build that cannot make them says so and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.errors import BuildError
from toolkit.pipeline import references
from toolkit.pipeline.stages import Job
from toolkit.progress import Silent
from toolkit.spec.models import Deployment
from toolkit.workspace import Artifact, Manifest, Workspace

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 2,
}


class Noting(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def deployment(**engine: object) -> Deployment:
    made = {"name": "chat", "model": {"source": "./m"}, "engine": engine}
    return Deployment.model_validate(made)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(deployment(), Workspace(tmp_path / "w"), Noting())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Artifact:
    place = tmp_path / "checkpoint"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG))
    manifest = Manifest(
        kind="checkpoint",
        key="0" * 64,
        inputs={},
        versions={},
        created="",
        duration_s=0,
        peak_memory_bytes=0,
        files={},
    )
    return Artifact(place, "checkpoint", "0" * 64, manifest, reused=True)


def noted(job: Job) -> str:
    assert isinstance(job.progress, Noting)
    (note,) = job.progress.notes
    return note


def test_a_worker_that_fails_leaves_nothing_behind(
    job: Job, checkpoint: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> list[dict[str, object]]:
        raise BuildError("its process ended with code 1", details=["first", "KeyError: 'rope'"])

    monkeypatch.setattr(references, "_ask", fail)
    assert references.record(job, checkpoint) is None
    assert noted(job).endswith("its process ended with code 1; KeyError: 'rope'")
    assert job.workspace.list() == []


def test_a_real_worker_that_fails_is_told_by_its_last_line(job: Job, checkpoint: Artifact) -> None:
    """The checkpoint has no tokenizer."""
    assert references.record(job, checkpoint) is None
    assert "its process ended with code 1" in noted(job)
    assert job.workspace.list() == []


def test_a_model_that_takes_too_long_is_left_out(
    job: Job, checkpoint: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "_MOST_PARAMETERS", 1000)
    monkeypatch.setattr(references, "_ask", lambda path: pytest.fail("it was asked"))
    assert references.record(job, checkpoint) is None
    assert "billion parameters" in noted(job)


def test_libraries_that_are_missing_are_named(
    job: Job, checkpoint: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references.importlib.util, "find_spec", lambda name: None)
    assert references.record(job, checkpoint) is None
    assert "torch, transformers, tokenizers not installed" in noted(job)


def test_what_was_recorded_is_found_by_the_repository_s_checkpoint(
    job: Job, checkpoint: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"prompt": "p", "tokens": [1, 2], "text": "a b"}
    monkeypatch.setattr(references, "_ask", lambda path: [answer])
    made = references.record(job, checkpoint)
    assert made is not None

    def rendered(key: str) -> Path:
        def work(out: Path) -> None:
            (out / "repository" / "chat").mkdir(parents=True)
            (out / "repository" / "chat" / "tokenizer.json").write_text("{}")

        inputs = {"checkpoint": key}
        found = job.workspace.produce("repository", inputs, work, progress=Silent())
        return found.path / "repository"

    standard = references.standard_of(deployment(), rendered(checkpoint.key))
    assert [(each.prompt, each.tokens, each.text) for each in standard.references] == [
        ("p", (1, 2), "a b")
    ]
    assert standard.tokenize is not None
    assert references.standard_of(deployment(), rendered("1" * 64)).references == ()


@pytest.mark.parametrize(("runtime", "share"), [("openvino", 0.0), ("pytorch", 1.0)])
def test_rounding_in_a_batch_is_expected_of_gpus_alone(runtime: str, share: float) -> None:
    standard = references.standard_of(deployment(runtime=runtime), None)
    assert standard.numeric_share == share
    assert standard.references == ()
    assert standard.tokenize is None
