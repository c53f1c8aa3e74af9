"""``toolkit init`` and ``toolkit schema`` as a user meets them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from toolkit.cli import init_command, schema_command
from toolkit.errors import EnvironmentError_, SpecError
from toolkit.spec import writing
from toolkit.spec.loading import load
from toolkit.spec.schema import deployment_schema

SAMPLE = "sample:smollm2-135m"


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    init_command.register(app)
    schema_command.register(app)
    return app


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(app: typer.Typer, *words: str) -> Result:
    result = CliRunner().invoke(app, words)
    if isinstance(result.exception, SpecError):
        raise result.exception
    return result


def test_init_writes_a_file_that_loads(app: typer.Typer, folder: Path) -> None:
    result = run(app, "init", "--model", SAMPLE)
    assert result.exit_code == 0
    assert "toolkit build deploy.yaml" in result.output
    deployment = load(folder / "deploy.yaml", environ={}).deployment
    assert deployment.model.source == SAMPLE
    assert deployment.engine.runtime == "openvino"
    assert [path.name for path in folder.iterdir()] == ["deploy.yaml"]


def test_init_takes_all_its_choices(app: typer.Typer, folder: Path) -> None:
    words = ["--gpu", "h100", "--for", "throughput", "--name", "chat", "--output", "h.yaml"]
    run(app, "init", "--model", "hf://a/b@main", *words, "--schema", "s.json")
    text = (folder / "h.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=s.json\n")
    deployment = load(folder / "h.yaml", environ={}).deployment
    assert (deployment.name, deployment.quantization.weights) == ("chat", "fp8")
    assert deployment.engine.limits.max_batch_size == 256


def test_init_prints_to_a_dash(app: typer.Typer, folder: Path) -> None:
    printed = run(app, "init", "--model", SAMPLE, "--output", "-").output
    (folder / "x.yaml").write_text(printed)
    assert load(folder / "x.yaml", environ={}).deployment.name == "smollm2-135m"
    assert not (folder / "-").exists()


def test_init_never_overwrites_without_force(app: typer.Typer, folder: Path) -> None:
    (folder / "deploy.yaml").write_text("mine")
    with pytest.raises(SpecError, match="exists already") as caught:
        run(app, "init", "--model", SAMPLE)
    assert "--force" in (caught.value.hint or "")
    assert (folder / "deploy.yaml").read_text() == "mine"
    run(app, "init", "--model", SAMPLE, "--force")
    assert load(folder / "deploy.yaml", environ={}).deployment.model.source == SAMPLE


def test_a_file_that_appears_meanwhile_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = writing.os.fsync

    def appear(handle: int) -> None:
        real(handle)
        (folder / "deploy.yaml").write_text("theirs")

    monkeypatch.setattr(writing.os, "fsync", appear)
    with pytest.raises(SpecError, match="exists already"):
        writing.write_text(folder / "deploy.yaml", "ours", force=False)
    assert (folder / "deploy.yaml").read_text() == "theirs"
    assert len(list(folder.iterdir())) == 1


def test_a_failed_write_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deploy.yaml").write_text("old")

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", fail)
    with pytest.raises(EnvironmentError_, match="No space left on device"):
        writing.write_text(folder / "deploy.yaml", "new", force=True)
    assert (folder / "deploy.yaml").read_text() == "old"
    assert len(list(folder.iterdir())) == 1


def test_a_file_system_without_links_is_fine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    writing.write_text(folder / "deploy.yaml", "new", force=False)
    assert (folder / "deploy.yaml").read_text() == "new"


def test_the_file_has_ordinary_permissions(app: typer.Typer, folder: Path) -> None:
    run(app, "init", "--model", SAMPLE)
    (folder / "plain").touch()
    mode = stat.S_IMODE((folder / "deploy.yaml").stat().st_mode)
    assert mode == stat.S_IMODE((folder / "plain").stat().st_mode)


@pytest.mark.parametrize("output", [".", "missing/deploy.yaml"])
def test_init_tells_where_it_cannot_write(app: typer.Typer, output: str) -> None:
    with pytest.raises(SpecError):
        run(app, "init", "--model", SAMPLE, "--output", output)


def test_a_local_model_is_written_as_the_file_sees_it(app: typer.Typer, folder: Path) -> None:
    (folder / "models" / "tiny").mkdir(parents=True)
    (folder / "conf").mkdir()
    run(app, "init", "--model", "models/tiny", "--output", "conf/deploy.yaml")
    loaded = load(folder / "conf" / "deploy.yaml", environ={})
    assert loaded.deployment.model.source == "../models/tiny"
    assert loaded.resolved().model.source == str(folder / "models" / "tiny")
    run(app, "init", "--model", "models/tiny")
    assert load(folder / "deploy.yaml", environ={}).deployment.model.source == "./models/tiny"


@pytest.mark.parametrize("source", ["sample:smollm2", "/nope", "./nope.gguf", "hf://x", "a/b"])
def test_init_refuses_what_can_be_no_source(app: typer.Typer, folder: Path, source: str) -> None:
    with pytest.raises(SpecError):
        run(app, "init", "--model", source)
    assert list(folder.iterdir()) == []


def test_limits_stay_within_a_local_models_context(app: typer.Typer, folder: Path) -> None:
    (folder / "m").mkdir()
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 100,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
    }
    (folder / "m/config.json").write_text(json.dumps(config))
    run(app, "init", "--model", "m")
    limits = load(folder / "deploy.yaml", environ={}).deployment.engine.limits
    assert (limits.max_seq_len, limits.max_input_len) == (512, 448)


@pytest.mark.parametrize("gpu", ["v100", "T4"])
def test_init_says_that_old_gpus_are_not_supported(app: typer.Typer, gpu: str) -> None:
    with pytest.raises(SpecError, match="compute capability 7") as caught:
        run(app, "init", "--model", SAMPLE, "--gpu", gpu)
    assert "L4" in (caught.value.hint or "")
    assert "H100" in (caught.value.hint or "")


def test_init_tells_an_unknown_gpu(app: typer.Typer) -> None:
    with pytest.raises(SpecError) as caught:
        run(app, "init", "--model", SAMPLE, "--gpu", "H1000")
    assert caught.value.hint == "did you mean H100?"


def test_schema_prints_and_writes(app: typer.Typer, folder: Path) -> None:
    printed = run(app, "schema").output
    assert json.loads(printed) == deployment_schema()
    for _ in range(2):
        run(app, "schema", "--output", "s.json")
        assert (folder / "s.json").read_text() == printed
