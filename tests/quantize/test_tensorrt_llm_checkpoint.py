from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_model import write_small_model

from toolkit.checkpoint.architecture import read_architecture
from toolkit.checkpoint.safetensors_file import read_header, read_tensor
from toolkit.errors import UnsupportedError, ValidationFailed
from toolkit.progress import Silent
from toolkit.quantize import QuantizationReport
from toolkit.quantize.trtllm_check import compare_export
from toolkit.quantize.trtllm_export import check_export, export_here, export_tensorrt_llm
from toolkit.spec.models import Quantization

FEW = {"samples": 8, "max_length": 64}
# The model is random: its figures say nothing about the formats.
WIDE = {"perplexity_increase": 5.0, "kl_divergence": 5.0, "top1_agreement": 0.01}


def spec(weights: str = "fp8", kv_cache: str = "none", **more: Any) -> Quantization:
    return Quantization.model_validate(
        {"weights": weights, "kv_cache": kv_cache, "calibration": FEW, "accept": WIDE, **more}
    )


def export(
    checkpoint: Path, wanted: Quantization, out: Path, tensor: int = 1, pipeline: int = 1
) -> dict[str, Any]:
    out.mkdir()
    scratch = out.with_name("scratch")
    scratch.mkdir()
    export_here(
        checkpoint, wanted, out, scratch, tensor=tensor, pipeline=pipeline, progress=Silent()
    )
    arch = read_architecture(checkpoint)
    resolved = check_export(arch, wanted, tensor=tensor, pipeline=pipeline)
    compare_export(arch, resolved, out, tensor=tensor, pipeline=pipeline)
    config: dict[str, Any] = json.loads((out / "config.json").read_text())
    return config


@pytest.mark.parametrize(
    ("weights", "kv_cache", "algorithm", "tensor", "pipeline"),
    [
        ("fp8", "none", "FP8", 1, 1),
        ("fp8", "fp8", "FP8", 2, 2),
        ("int8_sq", "int8", "W8A8_SQ_PER_CHANNEL", 2, 1),
        ("none", "none", None, 1, 2),
    ],
)
def test_an_export_reads_back(
    small_checkpoint: Path,
    tmp_path: Path,
    weights: str,
    kv_cache: str,
    algorithm: str | None,
    tensor: int,
    pipeline: int,
) -> None:
    config = export(small_checkpoint, spec(weights, kv_cache), tmp_path / "out", tensor, pipeline)
    assert config["quantization"]["quant_algo"] == algorithm
    assert config["rotary_base"] == 75000.0
    ranks = sorted(file.name for file in (tmp_path / "out").glob("rank*.safetensors"))
    assert ranks == [f"rank{rank}.safetensors" for rank in range(tensor * pipeline)]


def test_awq_in_blocks_that_the_kernels_take(tmp_path: Path) -> None:
    model = write_small_model(
        tmp_path / "model", hidden_size=128, intermediate_size=256, head_dim=32
    )
    config = export(model, spec("int4_awq"), tmp_path / "out", tensor=2)
    assert config["quantization"]["quant_algo"] == "W4A16_AWQ"
    assert config["quantization"]["group_size"] == 64


def test_rope_scaling_of_llama_3(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }
    model = write_small_model(tmp_path / "model", rope_parameters=rope)
    config = export(model, spec(), tmp_path / "out")
    assert config["rotary_base"] == 500000.0
    assert config["rotary_scaling"]["factor"] == 8.0
    assert config["rotary_scaling"]["type"] == "llama3"


@pytest.fixture(scope="module")
def exported(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trtllm") / "out"
    export(small_checkpoint, spec("fp8", "fp8"), out, tensor=1, pipeline=2)
    return out


def field(name: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        *parents, last = name.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        if value is None:
            del section[last]
        else:
            section[last] = value
        (path / "config.json").write_text(json.dumps(config))

    return change


def without_rank(path: Path) -> None:
    (path / "rank1.safetensors").unlink()


def without(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(path / "rank1.safetensors")
        del tensors[name]
        save_file(tensors, path / "rank1.safetensors")

    return change


def untied(path: Path) -> None:
    info = next(i for i in read_header(path / "rank1.safetensors") if i.name == "lm_head.weight")
    with (path / "rank1.safetensors").open("r+b") as file:
        file.seek(info.begin)
        file.write(b"\x01\x02")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (field("rotary_base", None), "rotary_base is None, the source has 75000.0"),
        (field("rotary_base", 10000.0), "rotary_base"),
        (field("norm_epsilon", 1e-5), "norm_epsilon"),
        (field("head_size", 12), "head_size"),
        (field("quantization.kv_cache_quant_algo", None), "kv_cache_quant_algo"),
        (field("quantization.exclude_modules", []), "exclude_modules"),
        (field("mapping.pp_size", 1), "mapping"),
        (without_rank, "rank1.safetensors is missing"),
        (without("transformer.layers.1.mlp.gate.weight"), "lacks transformer.layers.1.mlp.gate"),
        (without("transformer.layers.0.mlp.fc.weights_scaling_factor"), "weights_scaling_factor"),
        (without("transformer.layers.1.attention.kv_cache_scaling_factor"), "kv_cache_scaling"),
        (untied, "lm_head differs"),
    ],
)
def test_a_defect_is_found(
    small_checkpoint: Path,
    exported: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    text: str,
) -> None:
    import shutil

    broken = Path(shutil.copytree(exported, tmp_path / "broken"))
    change(broken)
    arch = read_architecture(small_checkpoint)
    resolved = check_export(arch, spec("fp8", "fp8"), tensor=1, pipeline=2)
    with pytest.raises(ValidationFailed) as caught:
        compare_export(arch, resolved, broken, tensor=1, pipeline=2)
    assert text in "\n".join([caught.value.message, *caught.value.details])


@pytest.mark.parametrize(
    ("tensor", "pipeline", "text", "works"),
    [
        (3, 1, "attention heads \\(4\\) cannot be divided by 3", "1, 2"),
        (4, 1, "KV heads \\(2\\) cannot be divided by 4", "1, 2"),
        (1, 3, "the layers \\(4\\) cannot be divided by 3", "1, 2, 4"),
    ],
)
def test_sizes_that_do_not_divide(
    small_checkpoint: Path, tmp_path: Path, tensor: int, pipeline: int, text: str, works: str
) -> None:
    with pytest.raises(UnsupportedError, match=text) as caught:
        export_tensorrt_llm(
            small_checkpoint,
            spec(),
            tmp_path / "out",
            tensor=tensor,
            pipeline=pipeline,
            progress=Silent(),
        )
    assert str(caught.value.hint).endswith(works)
    assert not (tmp_path / "out").exists()


def test_the_public_call_writes_the_checkpoint_and_its_report(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = export_tensorrt_llm(
        small_checkpoint, spec(), out, tensor=2, pipeline=1, progress=Silent()
    )
    assert sorted(file.name for file in out.iterdir()) == [
        "config.json", "notes.json", "rank0.safetensors", "rank1.safetensors"]  # fmt: skip
    assert report.gate is not None
    assert 0 < report.gate.kl_divergence < 5
    assert report.bytes_after > 0
    assert QuantizationReport.from_json(json.loads((out / "notes.json").read_text())) == report


@pytest.mark.parametrize(("weights", "kv_cache"), [("fp8", "none"), ("none", "int8")])
def test_what_loses_too_much_is_not_exported(
    small_checkpoint: Path, tmp_path: Path, weights: str, kv_cache: str
) -> None:
    strict = spec(weights, kv_cache, accept={"kl_divergence": 1e-9})
    with pytest.raises(ValidationFailed, match="the accuracy gate failed"):
        export_tensorrt_llm(small_checkpoint, strict, tmp_path / "out", progress=Silent())
    assert list((tmp_path / "out").iterdir()) == []


def test_what_changes_nothing_is_not_judged(small_checkpoint: Path, tmp_path: Path) -> None:
    strict = spec("none", accept={"kl_divergence": 1e-9})
    report = export_tensorrt_llm(small_checkpoint, strict, tmp_path / "out", progress=Silent())
    assert report.gate is None


def test_the_shards_are_the_model(small_checkpoint: Path, tmp_path: Path) -> None:
    """Two ranks of the unquantized model, put together, are its own weights."""
    import numpy as np

    from toolkit.quantize.unified import UnifiedCheckpoint

    export(small_checkpoint, spec("none"), tmp_path / "out", tensor=2)
    parts = [tensors(tmp_path / "out" / f"rank{rank}.safetensors") for rank in (0, 1)]
    original = UnifiedCheckpoint(small_checkpoint)
    name = "transformer.layers.2.mlp.proj.weight"
    whole = np.concatenate([part[name] for part in parts], axis=1)
    wanted = original.tensor("model.layers.2.mlp.down_proj.weight")
    np.testing.assert_array_equal(whole.astype("f4"), wanted.astype("f4"))
    fused = [part["transformer.layers.2.attention.qkv.weight"] for part in parts]
    queries = np.concatenate([part[:48] for part in fused])
    wanted = original.tensor("model.layers.2.self_attn.q_proj.weight")
    np.testing.assert_array_equal(queries.astype("f4"), wanted.astype("f4"))


def tensors(path: Path) -> dict[str, Any]:
    return {info.name: read_tensor(path, info) for info in read_header(path)}
