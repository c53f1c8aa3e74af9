"""A build for NVIDIA GPUs: TensorRT-LLM's own commands run, what they leave is read back."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_builder import install
from tiny_checkpoints import write_checkpoint

from toolkit.checkpoint.architecture import read_architecture
from toolkit.cli.app import run
from toolkit.engine.tensorrt import Command
from toolkit.errors import (
    BuildError,
    EnvironmentError_,
    SpecError,
    UnsupportedError,
    ValidationFailed,
)
from toolkit.pipeline import BuildResult, build, stages, trtllm_build
from toolkit.progress import Progress, Silent
from toolkit.spec.fields import Slot, field_slot
from toolkit.spec.models import Deployment, Quantization
from toolkit.workspace import Artifact, Workspace, users_by_key

LIMITS = {"max_batch_size": 4, "max_input_len": 64, "max_seq_len": 128, "max_num_tokens": 256}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


@pytest.fixture
def store(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ModelOpt nor the repository's templates: each has tests of its own."""

    def export(
        checkpoint: Path,
        spec: Quantization,
        out: Path,
        *,
        tensor: int,
        pipeline: int,
        progress: Progress,
    ) -> None:
        algorithm = {"none": None, "fp8": "FP8"}[spec.weights]
        layers = read_architecture(checkpoint).num_layers
        config = {
            "num_hidden_layers": layers,
            "mapping": {"tp_size": tensor, "pp_size": pipeline},
            "quantization": {"quant_algo": algorithm, "kv_cache_quant_algo": None},
        }
        (out / "config.json").write_text(json.dumps(config))

    def render(deployment: Deployment, engine: Path, checkpoint: Path, out: Path, **_: Any) -> None:
        out.mkdir()
        engine_json = json.loads((engine / "engine.json").read_text())
        told = {"engine": engine_json, "formats": deployment.quantization.weights}
        (out / "told.json").write_text(json.dumps(told))

    monkeypatch.setattr("toolkit.quantize.trtllm_export.export_tensorrt_llm", export)
    monkeypatch.setattr("toolkit.repository.render.render", render)
    monkeypatch.setattr("toolkit.repository.check.check_static", lambda _: [])


def deployment(model: Path, engine: dict[str, Any], weights: str = "none") -> Deployment:
    return Deployment.model_validate(
        {
            "name": "chat",
            "model": {"source": str(model)},
            "quantization": {"weights": weights},
            "engine": {"runtime": "tensorrt", "limits": LIMITS, **engine},
            "serving": {"gpu": "H100", "gpus": list(range(_gpus(engine)))},
        }
    )


def _gpus(engine: dict[str, Any]) -> int:
    ways = engine.get("parallelism", {})
    return int(ways.get("tensor", 1) * ways.get("pipeline", 1))


def built(store: Workspace, made: Deployment, **more: Any) -> BuildResult:
    return build(made, store, progress=Silent(), **more)


def artifact(result: BuildResult, name: str) -> Artifact:
    found = result.artifact(name)
    assert found is not None
    return found


def test_an_engine_is_exported_built_read_back_and_rendered(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = install(tmp_path, monkeypatch)
    result = built(store, deployment(model, {}, "fp8"))
    assert [stage.name for stage in result.stages] == [
        "checkpoint",
        "exported",
        "engine",
        "repository",
    ]
    assert result.runtime == "tensorrt"
    (call,) = builder.calls
    assert call[call.index("--max_batch_size") + 1] == "4"
    engine = artifact(result, "engine").path
    assert (engine / "target" / "rank0.engine").is_file()
    told = json.loads((result.repository / "told.json").read_text())
    assert told["engine"] == {"runtime": "tensorrt", "release": "1.2.1", "tensorrt_llm": "1.2.1"}
    assert told["formats"] == "fp8"
    again = built(store, deployment(model, {}, "fp8"))
    assert all(stage.artifact.reused for stage in again.stages)
    assert len(builder.calls) == 1


def test_every_rank_is_built(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    made = deployment(model, {"parallelism": {"tensor": 2, "pipeline": 2}})
    engine = artifact(built(store, made), "engine").path
    ranks = sorted(file.name for file in (engine / "target").glob("*.engine"))
    assert ranks == [f"rank{rank}.engine" for rank in range(4)]


def test_a_draft_model_gets_an_engine_of_its_own(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = install(tmp_path, monkeypatch)
    draft = write_checkpoint(tmp_path / "draft", seed=3, num_hidden_layers=1)
    chosen = {"method": "draft_model", "draft": {"source": str(draft)}, "max_draft_len": 3}
    result = built(store, deployment(model, {"speculation": chosen}))
    engine = artifact(result, "engine").path
    assert len(builder.calls) == 2
    assert (engine / "draft" / "rank0.engine").is_file()
    config = json.loads((engine / "draft" / "config.json").read_text())
    assert config["pretrained_config"]["num_hidden_layers"] == 1
    assert artifact(result, "exported draft").key != artifact(result, "exported").key


def write_adapter(folder: Path, **changes: Any) -> str:
    """As PEFT saves one; its weights are its folder's name."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_model.safetensors").write_text(folder.name)
    config = {"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"], **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def test_adapters_are_converted_for_engines_and_numbered(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = install(tmp_path, monkeypatch)
    done = tmp_path / "done"
    done.mkdir()
    for part in ("weights", "config"):
        (done / f"model.lora_{part}.npy").write_text("done")
    adapters = {"sql": write_adapter(tmp_path / "sql"), "done": str(done)}
    made = deployment(model, {"lora": {"adapters": adapters}})
    result = built(store, made)
    engine = artifact(result, "engine").path
    for number, weights in enumerate(("sql", "done")):
        place = engine / "adapters" / str(number)
        assert (place / "model.lora_weights.npy").read_text() == weights
        assert (place / "model.lora_config.npy").is_file()
    convert, build_ = builder.calls
    assert convert[0] == "/app/examples/hf_lora_convert.py"
    assert convert[convert.index("--in-file") + 1] == adapters["sql"]
    assert convert[convert.index("--storage-type") + 1] == "bfloat16"
    assert build_[build_.index("--lora_plugin") + 1] == "auto"
    (tmp_path / "sql" / "adapter_model.safetensors").write_text("other")
    assert not artifact(built(store, made, dry_run=True), "engine").reused


@pytest.mark.parametrize(
    ("runtime", "changes", "told"),
    [
        ("tensorrt", {"r": 65}, "max_rank: 65"),
        ("pytorch", {"r": 8, "rank_pattern": {"q_proj": 128}}, "max_rank: 128"),
        ("tensorrt", {"target_modules": ["q_proj", "up_proj"]}, "attn_q, attn_k, attn_v, mlp_gate"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_before_anything_is_built(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    runtime: str, changes: dict[str, Any], told: str,
) -> None:  # fmt: skip
    builder = install(tmp_path, monkeypatch)
    lora = {"adapters": {"sql": write_adapter(tmp_path / "sql", **changes)}}
    with pytest.raises(SpecError) as caught:
        built(store, deployment(model, {"runtime": runtime, "lora": lora}))
    assert caught.value.where == "engine.lora.adapters.sql"
    assert told in str(caught.value.hint)
    assert builder.calls == []
    assert not store.list("exported")


def test_an_adapter_in_the_engines_form_is_none_for_the_llm_api(
    store: Workspace, model: Path, tmp_path: Path
) -> None:
    for part in ("weights", "config"):
        (tmp_path / f"model.lora_{part}.npy").write_text("converted")
    engine = {"runtime": "pytorch", "lora": {"adapters": {"sql": str(tmp_path)}}}
    with pytest.raises(SpecError, match=r"no adapter_config\.json"):
        built(store, deployment(model, engine))


def test_what_is_no_adapter_is_refused(store: Workspace, model: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_text("weights alone")
    engine = {"runtime": "pytorch", "lora": {"adapters": {"sql": str(tmp_path)}}}
    with pytest.raises(SpecError, match=r"no adapter_config\.json"):
        built(store, deployment(model, engine))


def test_adapters_in_another_order_are_other_numbers(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    for name in ("sql", "chat"):
        write_adapter(tmp_path / name)
    for names in (("sql", "chat"), ("chat", "sql")):
        lora = {"adapters": {name: str(tmp_path / name) for name in names}}
        result = built(store, deployment(model, {"lora": lora}))
        folder = artifact(result, "engine").path / "adapters"
        found = [(folder / str(number) / "model.lora_weights.npy").read_text() for number in (0, 1)]
        assert found == list(names)
        assert not artifact(result, "repository").reused


def test_classes_in_another_order_are_another_repository(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    plain = deployment(model, {})
    keys = set()
    for names in (("interactive", "batch"), ("batch", "interactive")):
        classes = {name: {"weight": 8 if name == "batch" else 1} for name in names}
        made = Deployment.model_validate({**plain.model_dump(), "scheduling": {"classes": classes}})
        result = built(store, made)
        assert artifact(result, "engine").reused is bool(keys)
        keys.add(artifact(result, "repository").key)
    assert len(keys) == 2


def test_the_gateway_s_settings_render_nothing_anew(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    plain = deployment(model, {})
    built(store, plain)
    made = Deployment.model_validate({**plain.model_dump(), "gateway": {"port": 9001}})
    assert artifact(built(store, made), "repository").reused


def test_every_part_of_the_file_with_free_names_has_its_order_among_the_inputs() -> None:
    def free(slot: Slot, path: str) -> Iterator[str]:
        for section in slot.sections:
            for name, info in section.model_fields.items():
                below = field_slot(info)
                if below.key:
                    yield f"{path}{name}"
                yield from free(below, f"{path}{name}.")

    assert set(free(Slot(Deployment), "")) == set(stages.ORDERED)


def test_pruning_during_a_build_leaves_what_the_build_has_made(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    before = artifact(built(store, deployment(model, {})), "engine")
    require = trtllm_build.run_command

    def prune_first(command: Command, *, progress: Progress) -> None:
        store.prune(set(users_by_key(store.root)))
        require(command, progress=progress)

    monkeypatch.setattr(trtllm_build, "run_command", prune_first)
    result = built(store, deployment(model, {}, "fp8"))
    assert all(store.verify(stage.artifact) == [] for stage in result.stages)
    assert before.path.exists()
    assert set(users_by_key(store.root)) == {stage.artifact.key for stage in result.stages}


def test_an_engine_that_is_not_what_was_ordered_is_refused(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    monkeypatch.setenv("FAKE_CHANGE", '{"kv_cache_quant_algo": "FP8"}')
    with pytest.raises(ValidationFailed, match="kv_cache_quant_algo"):
        built(store, deployment(model, {}))
    assert not store.list("engine")


def test_a_failed_build_shows_the_end_of_its_log(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    monkeypatch.setenv("FAKE_BUILD", "fail")
    with pytest.raises(BuildError, match="code 3") as caught:
        built(store, deployment(model, {}))
    assert "Out of memory" in caught.value.details[-1]
    assert caught.value.hint
    assert caught.value.where
    assert "--max_batch_size 4" in Path(caught.value.where).read_text()
    Path(caught.value.where).unlink()
    assert not store.list("engine")
    monkeypatch.delenv("FAKE_BUILD")
    assert built(store, deployment(model, {})).complete


def test_a_build_that_leaves_nothing_is_a_failure(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    monkeypatch.setenv("FAKE_BUILD", "nothing")
    with pytest.raises(BuildError, match="nothing behind") as caught:
        built(store, deployment(model, {}))
    Path(str(caught.value.where)).unlink()


def test_an_interrupt_ends_the_builder_and_leaves_nothing(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = install(tmp_path, monkeypatch)
    monkeypatch.setenv("FAKE_BUILD", "hang")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupt() -> None:
        while builder.process is None:
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        built(store, deployment(model, {}))
    assert builder.process is not None
    assert not Path(f"/proc/{builder.process}").exists()
    assert not store.list("engine")
    assert not list(store.root.glob("engine/.*.partial"))
    assert not list(tmp_path.glob("toolkit-*.log"))


def test_without_a_builder_the_way_into_the_container_is_named(
    store: Workspace, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentError_) as caught:
        built(store, deployment(model, {}))
    assert "--where container" in str(caught.value.hint)
    assert not store.list("exported")


def test_a_builder_of_another_release_is_refused_before_it_builds(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = install(tmp_path, monkeypatch, version="1.1.0")
    with pytest.raises(UnsupportedError, match=r"1\.1\.0.*1\.2\.1"):
        built(store, deployment(model, {}))
    assert builder.calls == []
    assert built(store, deployment(model, {"release": "1.1.0"})).complete


def test_the_llm_api_gets_its_checkpoint_draft_and_adapters(
    store: Workspace, model: Path, tmp_path: Path
) -> None:
    draft = write_checkpoint(tmp_path / "draft", seed=3)
    engine = {
        "runtime": "pytorch",
        "speculation": {
            "method": "draft_model",
            "draft": {"source": str(draft)},
            "max_draft_len": 3,
        },
        "lora": {"adapters": {"sql": write_adapter(tmp_path / "sql")}},
    }
    result = built(store, deployment(model, engine))
    assert result.runtime == "pytorch"
    folder = artifact(result, "engine").path
    assert (folder / "draft" / "model.safetensors").is_file()
    assert (folder / "adapters" / "sql" / "adapter_model.safetensors").read_text() == "sql"
    told = json.loads((result.repository / "told.json").read_text())
    assert told["engine"]["runtime"] == "pytorch"


def test_a_head_is_no_whole_checkpoint(store: Workspace, model: Path, tmp_path: Path) -> None:
    head = tmp_path / "head"
    head.mkdir()
    engine = {"runtime": "pytorch", "speculation": {"method": "eagle3", "source": str(head)}}
    with pytest.raises(SpecError, match="no weights"):
        built(store, deployment(model, engine))
    (head / "pytorch_model.bin").write_text("pickle")
    with pytest.raises(SpecError, match="pickle"):
        built(store, deployment(model, engine))
    (head / "model.safetensors").write_text("head")
    folder = artifact(built(store, deployment(model, engine)), "engine").path
    assert [file.name for file in (folder / "draft").iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("method", "script"),
    [
        ({"method": "eagle", "max_draft_len": 63}, "/app/examples/eagle/convert_checkpoint.py"),
        ({"method": "medusa", "max_draft_len": 63}, "/app/examples/medusa/convert_checkpoint.py"),
    ],
)
def test_heads_are_converted_with_their_target_and_read_back(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    method: dict[str, Any], script: str,
) -> None:  # fmt: skip
    builder = install(tmp_path, monkeypatch)
    head = tmp_path / "head"
    head.mkdir()
    (head / "model.safetensors").write_text("head")
    limits = {**LIMITS, "max_num_tokens": 512}
    chosen = {**method, "source": str(head)}
    result = built(store, deployment(model, {"speculation": chosen, "limits": limits}))
    convert, build_ = builder.calls
    assert convert[0] == script
    converted = convert[convert.index("--output_dir") + 1]
    assert build_[build_.index("--checkpoint_dir") + 1] == converted
    assert build_[build_.index("--speculative_decoding_mode") + 1] == method["method"]
    assert not Path(converted).exists()
    assert [stage.name for stage in result.stages] == [
        "checkpoint",
        "draft",
        "engine",
        "repository",
    ]


def test_auto_builds_for_the_gpu_that_is_named(store: Workspace, model: Path) -> None:
    made = deployment(model, {"runtime": "auto"})
    assert built(store, made).runtime == "pytorch"


def test_a_dry_run_tells_the_commands_and_builds_nothing(
    store: Workspace, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = install(tmp_path, monkeypatch)
    made = deployment(model, {})
    stages.fetch(stages.Job(made, store, Silent()))
    looked = built(store, made, dry_run=True)
    assert looked.complete
    (command,) = looked.commands
    assert str(artifact(looked, "engine").path / "target") in command
    place = f'string_value: "{looked.repository}/tensorrt_llm/1/engine"'
    assert place in looked.preview["tensorrt_llm/config.pbtxt"]
    assert builder.calls == []
    assert not store.list("engine")


def test_a_dry_run_without_weights_needs_the_config_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from config_files import write_config

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    file = tmp_path / "d.yaml"
    file.write_text(
        "name: chat\nmodel: {source: hf://a/b}\nengine: {runtime: tensorrt}\nserving: {gpu: H100}\n"
    )
    words = ["build", str(file), "--dry-run", "--offline", "--json", "--quiet"]
    assert run(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["commands"] == []
    assert "a/b" in told["obstacle"]
    assert run([word for word in words if word != "--json"]) == 0
    printed = capsys.readouterr()
    assert "a/b" in printed.err
    assert "--model-config" in printed.err
    assert "stage" not in printed.out.splitlines()[0]  # no table of nothing
    words += ["--model-config", str(write_config(tmp_path))]
    assert run(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runtime"] == "tensorrt"
    assert told["commands"][0].startswith("trtllm-build ")
    assert run([*words, "--set", "quantization.weights=nvfp4"]) == 2


def test_what_does_not_fit_is_refused_before_anything_is_fetched(
    store: Workspace, tmp_path: Path
) -> None:
    wide = write_checkpoint(tmp_path / "wide", max_position_embeddings=10_000_000)
    made = deployment(wide, {})
    limits = made.engine.limits.model_copy(update={"max_seq_len": 9_000_000})
    cache = made.engine.kv_cache.model_copy(update={"size": 2**20})
    engine = made.engine.model_copy(update={"limits": limits, "kv_cache": cache})
    with pytest.raises(UnsupportedError, match="KV cache"):
        built(store, made.model_copy(update={"engine": engine}))
    assert not store.list()
