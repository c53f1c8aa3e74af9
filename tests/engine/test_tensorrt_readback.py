"""A finished engine is compared with the deployment, field by field and by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from built_engine import write_engine
from model_shapes import LLAMA_1B, LLAMA_8B
from test_tensorrt_build import deployment

from toolkit.engine.tensorrt import (
    EngineConfig,
    build_commands,
    check,
    check_engine,
    read_engine_config,
)
from toolkit.errors import SpecError, ValidationFailed
from toolkit.quantize.check import check as check_quantization
from toolkit.releases import release
from toolkit.spec.gpus import find_gpu
from toolkit.spec.models import Quantization

RELEASE = release("1.2.1")
H100 = find_gpu("H100")
FP8 = ("fp8", "fp8")
DRAFT = {"method": "draft_model", "draft": {"source": "./d"}, "max_draft_len": 3}
ALGOS = {"none": None, "fp8": "FP8", "int4_awq": "W4A16_AWQ"}


def built(
    path: Path,
    engine: dict[str, Any],
    formats: tuple[str, str] = FP8,
    change: Callable[[dict[str, Any]], None] = lambda config: None,
) -> EngineConfig:
    """Build on paper, change config.json, and read it back."""
    made = deployment(engine, formats)
    resolved = check(made.engine, made.quantization, LLAMA_8B, RELEASE, H100)
    command = build_commands(made, LLAMA_8B, RELEASE, resolved=resolved)[-1]
    if "draft" in str(command.step):
        command = build_commands(made, LLAMA_8B, RELEASE, resolved=resolved)[-2]
    ways = made.engine.parallelism
    config = write_engine(
        path,
        command,
        version=RELEASE.version,
        tensor=ways.tensor,
        pipeline=ways.pipeline,
        quant_algo=ALGOS[formats[0]],
        kv_cache_quant_algo=ALGOS[formats[1]],
        tree_layers=4,
    )
    change(config)
    (path / "config.json").write_text(json.dumps(config))
    return check_engine(path, made, LLAMA_8B, RELEASE, resolved)


@pytest.mark.parametrize(
    ("engine", "formats"),
    [
        ({}, FP8),
        ({}, ("none", "none")),
        ({"parallelism": {"tensor": 4, "pipeline": 2}}, FP8),
        ({"speculation": DRAFT}, FP8),
        ({"speculation": {"method": "lookahead"}, "limits": {"max_batch_size": 8}}, FP8),
        (
            {"speculation": {"method": "eagle", "source": "./e"}, "limits": {"max_batch_size": 8}},
            ("none", "none"),
        ),
        (
            {"speculation": {"method": "medusa", "source": "./m"}, "limits": {"max_batch_size": 8}},
            ("none", "none"),
        ),
        ({"lora": {"adapters": {"sql": "./s"}, "target_modules": ("attn_q", "mlp_gate")}}, FP8),
        ({"tensorrt": {"opt_num_tokens": 32, "gather_generation_logits": True}}, FP8),
        ({"tensorrt": {"multiple_profiles": True}}, FP8),
        ({"kv_cache": {"tokens_per_block": 64}}, ("int4_awq", "none")),
    ],
)
def test_an_engine_as_it_was_ordered_passes(
    engine: dict[str, Any], formats: tuple[str, str], tmp_path: Path
) -> None:
    assert built(tmp_path, engine, formats).kv_cache_type == "paged"


def test_a_draft_engine_has_nothing_to_verify(tmp_path: Path) -> None:
    made = deployment({"speculation": DRAFT}, FP8)
    plain = check_quantization(LLAMA_1B, Quantization())
    command = build_commands(made, LLAMA_8B, RELEASE)[-1]
    assert command.step == "draft"
    write_engine(tmp_path, command, version=RELEASE.version, layers=LLAMA_1B.num_layers)
    config = check_engine(tmp_path, made, LLAMA_1B, RELEASE, plain, role="draft")
    assert config.speculative_mode is None
    with pytest.raises(ValidationFailed):
        check_engine(tmp_path, made, LLAMA_1B, RELEASE, plain, role="target")


CHANGES: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "another release": (("version",), "1.1.0", "engine.release"),
    "a smaller batch": (("build_config", "max_batch_size"), 32, "engine.limits.max_batch_size"),
    "a shorter prompt": (("build_config", "max_input_len"), 1024, "engine.limits.max_input_len"),
    "a shorter sequence": (("build_config", "max_seq_len"), 2048, "engine.limits.max_seq_len"),
    "a smaller step": (("build_config", "max_num_tokens"), 1024, "engine.limits.max_num_tokens"),
    "beams": (("build_config", "max_beam_width"), 4, "engine.limits"),
    "no cache": (("build_config", "kv_cache_type"), "DISABLED", "engine.kv_cache"),
    "a continuous cache": (("build_config", "kv_cache_type"), "continuous", "engine.kv_cache"),
    "speculation": (("build_config", "speculative_decoding_mode"), 4, "engine.speculation.method"),
    "drafts": (("build_config", "max_draft_len"), 5, "engine.speculation.max_draft_len"),
    "prompt logits": (
        ("build_config", "gather_context_logits"),
        True,
        "engine.tensorrt.gather_context_logits",
    ),
    "no paged attention": (
        ("build_config", "plugin_config", "use_paged_context_fmha"),
        False,
        "engine.kv_cache.reuse",
    ),
    "padded input": (
        ("build_config", "plugin_config", "remove_input_padding"),
        False,
        "engine.tensorrt",
    ),
    "no attention plugin": (
        ("build_config", "plugin_config", "gpt_attention_plugin"),
        None,
        "engine.tensorrt",
    ),
    "other blocks": (
        ("build_config", "plugin_config", "tokens_per_block"),
        64,
        "engine.kv_cache.tokens_per_block",
    ),
    "profiles": (
        ("build_config", "plugin_config", "multiple_profiles"),
        True,
        "engine.tensorrt.multiple_profiles",
    ),
    "no fp8 attention": (
        ("build_config", "plugin_config", "use_fp8_context_fmha"),
        None,
        "engine.tensorrt.fp8_context_attention",
    ),
    "two GPUs": (
        ("pretrained_config", "mapping", "tp_size"),
        2,
        "engine.parallelism.tensor",
    ),
    "two stages": (
        ("pretrained_config", "mapping", "pp_size"),
        2,
        "engine.parallelism.pipeline",
    ),
    "a world of two": (("pretrained_config", "mapping", "world_size"), 2, "engine.parallelism"),
    "another type": (("pretrained_config", "dtype"), "float16", "engine.dtype"),
    "another model": (("pretrained_config", "num_hidden_layers"), 80, "model.source"),
    "other weights": (
        ("pretrained_config", "quantization", "quant_algo"),
        "W4A16_AWQ",
        "quantization.weights",
    ),
    "a 16-bit cache": (
        ("pretrained_config", "quantization", "kv_cache_quant_algo"),
        None,
        "quantization.kv_cache",
    ),
}


@pytest.mark.parametrize(("path", "value", "field"), CHANGES.values(), ids=CHANGES.keys())
def test_an_engine_that_differs_is_refused_by_name(
    path: tuple[str, ...], value: Any, field: str, tmp_path: Path
) -> None:
    def change(config: dict[str, Any]) -> None:
        for step in path[:-1]:
            config = config[step]
        config[path[-1]] = value

    with pytest.raises(ValidationFailed) as caught:
        built(tmp_path, {}, change=change)
    everything = "\n".join((caught.value.message, *caught.value.details))
    assert path[-1] in everything
    assert field in everything
    assert "the deployment needs" in everything
    assert caught.value.where == str(tmp_path / "config.json")


def test_a_repaired_build_of_the_release_is_the_release(tmp_path: Path) -> None:
    """What the builder and the repository's check take, the read-back takes too."""

    def change(config: dict[str, Any]) -> None:
        config["version"] = f"{RELEASE.version}.post1"

    assert built(tmp_path, {}, change=change).version == f"{RELEASE.version}.post1"


def test_every_difference_is_told_at_once(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["version"] = "1.0.0"
        config["build_config"]["max_batch_size"] = 1

    with pytest.raises(ValidationFailed) as caught:
        built(tmp_path, {}, change=change)
    assert "version" in caught.value.message
    assert any("max_batch_size" in line for line in caught.value.details)


def test_adapters_that_the_engine_was_not_built_for(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["build_config"]["lora_config"]["max_lora_rank"] = 4

    engine = {"lora": {"adapters": {"sql": "./s"}, "max_rank": 8}}
    with pytest.raises(ValidationFailed, match="max_lora_rank"):
        built(tmp_path, engine, change=change)


def test_a_missing_rank_is_noticed(tmp_path: Path) -> None:
    engine = {"parallelism": {"tensor": 2}}
    built(tmp_path, engine)
    made = deployment(engine, FP8)
    resolved = check(made.engine, made.quantization, LLAMA_8B, RELEASE, H100)
    (tmp_path / "rank1.engine").unlink()
    with pytest.raises(ValidationFailed, match=r"rank1\.engine"):
        check_engine(tmp_path, made, LLAMA_8B, RELEASE, resolved)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), None),
        (("build_config",), []),
        (("build_config", "max_batch_size"), "64"),
        (("build_config", "max_batch_size"), True),
        (("build_config", "kv_cache_type"), None),
        (("build_config", "speculative_decoding_mode"), 3),
        (("pretrained_config", "mapping", "tp_size"), None),
    ],
)
def test_a_file_that_is_no_engine_s_config_is_refused(
    path: tuple[str, ...], value: Any, tmp_path: Path
) -> None:
    def change(config: dict[str, Any]) -> None:
        for step in path[:-1]:
            config = config[step]
        config[path[-1]] = value

    with pytest.raises(SpecError) as caught:
        built(tmp_path, {}, change=change)
    assert str(tmp_path / "config.json") in (caught.value.where or "")


def test_a_directory_without_an_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="missing"):
        read_engine_config(tmp_path)


def test_names_of_modes_and_caches_are_read_too(tmp_path: Path) -> None:
    built(tmp_path, {"speculation": DRAFT})
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["build_config"]["speculative_decoding_mode"] = "SpeculativeDecodingMode.EAGLE"
    config["build_config"]["kv_cache_type"] = "KVCacheType.PAGED"
    path.write_text(json.dumps(config))
    read = read_engine_config(tmp_path)
    assert (read.speculative_mode, read.kv_cache_type) == ("eagle", "paged")
