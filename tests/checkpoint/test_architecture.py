from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import tiny_config

from toolkit.checkpoint import (
    LinearRope,
    Llama3Rope,
    OtherRope,
    YarnRope,
    expected_tensors,
    read_architecture,
)
from toolkit.checkpoint.architecture import architecture_of
from toolkit.errors import SpecError, UnsupportedError

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def of(**changes: Any):
    return architecture_of({**tiny_config(), **changes}, {})


# Sizes from the published config.json of each model, parameters from its model card.
PUBLISHED = {
    "Llama-3.1-8B": (
        {
            "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "vocab_size": 128256, "tie_word_embeddings": False,
        },
        8_030_261_248,
        131_072,
    ),
    "Qwen2.5-0.5B": (
        {
            "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
            "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
            "vocab_size": 151936, "tie_word_embeddings": True,
        },
        494_032_768,
        12_288,
    ),
    "Qwen3-0.6B": (
        {
            "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
            "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
            "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True,
        },
        596_049_920,
        114_688,
    ),
    "Mistral-7B-v0.3": (
        {
            "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "vocab_size": 32768, "tie_word_embeddings": False,
        },
        7_248_023_552,
        131_072,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_kv_bytes_of_published_models(name: str) -> None:
    config, parameters, kv_bytes = PUBLISHED[name]
    arch = architecture_of({"max_position_embeddings": 8192, **config}, {})
    assert arch.parameters == parameters
    assert arch.kv_bytes_per_token(2) == kv_bytes
    assert arch.kv_bytes_per_token(0.5) == kv_bytes / 4


def test_tensors_by_family() -> None:
    llama = expected_tensors(of())
    assert llama["model.layers.1.self_attn.k_proj.weight"] == (16, 32)
    assert "model.layers.0.self_attn.q_proj.bias" not in llama
    qwen2 = expected_tensors(architecture_of(tiny_config("qwen2"), {}))
    assert qwen2["model.layers.0.self_attn.k_proj.bias"] == (16,)
    assert "model.layers.0.self_attn.o_proj.bias" not in qwen2
    qwen3 = expected_tensors(architecture_of(tiny_config("qwen3"), {}))
    assert qwen3["model.layers.0.self_attn.q_norm.weight"] == (24,)
    assert qwen3["model.layers.0.self_attn.o_proj.weight"] == (32, 96)


def test_bias_and_tied_embeddings_follow_the_config() -> None:
    arch = of(attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
    tensors = expected_tensors(arch)
    assert tensors["model.layers.0.self_attn.o_proj.bias"] == (32,)
    assert tensors["model.layers.0.mlp.up_proj.bias"] == (48,)
    assert "lm_head.weight" not in tensors


def test_mistral_is_llama_with_its_own_name_and_window() -> None:
    arch = of(model_type="mistral", sliding_window=4096)
    assert (arch.family, arch.model_type, arch.sliding_window) == ("llama", "mistral", 4096)


@pytest.mark.parametrize(("switch", "window"), [({}, None), ({"use_sliding_window": True}, 4096)])
def test_qwens_window_counts_only_when_it_is_on(switch: dict, window: int | None) -> None:
    config = tiny_config("qwen2", sliding_window=4096, **switch)
    assert architecture_of(config, {}).sliding_window == window


@pytest.mark.parametrize(
    ("config", "theta", "scaling"),
    [
        ({}, 10000.0, None),
        ({"rope_theta": 5e5}, 5e5, None),
        ({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}}, 5e5,
         Llama3Rope(8.0, 1.0, 4.0, 8192)),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}}, 5e5,
         Llama3Rope(8.0, 1.0, 4.0, 8192)),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 1e6, None),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, 10000.0, LinearRope(2.0)),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0,
                           "original_max_position_embeddings": 32768}}, 10000.0,
         YarnRope(4.0, 32768)),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16,
                           "attention_factor": 1.2}}, 10000.0,
         YarnRope(4.0, 128, beta_fast=16.0, attention_factor=1.2)),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, 10000.0,
         OtherRope("longrope")),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, 10000.0,
         OtherRope("per layer type")),
    ],
)  # fmt: skip
def test_rope_in_all_layouts(config: dict, theta: float, scaling: object) -> None:
    bare = tiny_config()
    del bare["rope_theta"]
    arch = architecture_of({**bare, **config}, {})
    assert arch.rope_theta == theta
    assert arch.rope_scaling == scaling


@pytest.mark.parametrize("kind", ["llama3", "linear", "yarn"])
def test_rope_without_its_factor_is_refused(kind: str) -> None:
    with pytest.raises(SpecError, match="lacks factor"):
        of(rope_scaling={"rope_type": kind})


def test_end_tokens_come_from_the_generation_config_first(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny_config(eos_token_id=2)))
    assert read_architecture(tmp_path).eos_token_ids == (2,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 2]}))
    assert read_architecture(tmp_path).eos_token_ids == (7, 2)


def test_another_family_keeps_its_name_and_numbers() -> None:
    arch = of(model_type="gemma2", head_dim=16)
    assert (arch.family, arch.model_type, arch.head_dim) == ("other", "gemma2", 16)
    assert arch.kv_bytes_per_token(2) == 2 * 2 * 2 * 16 * 2
    with pytest.raises(UnsupportedError, match="gemma2"):
        _ = arch.parameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"model_type": None}, "model_type"),
        ({"num_key_value_heads": 3}, "not a multiple"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5'"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"eos_token_id": ["</s>"]}, "eos_token_id"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"bos_token_id": [1.5]}, "bos_token_id"),
    ],
)
def test_wrong_numbers_are_named(changes: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        of(**changes)


def test_null_means_the_default() -> None:
    assert of(rms_norm_eps=None).rms_norm_eps == 1e-6
    assert of(eos_token_id=None).eos_token_ids == ()


def test_config_errors_say_where(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"config.json is missing"):
        read_architecture(tmp_path)
    (tmp_path / "config.json").write_text('{\n  "model_type": }')
    with pytest.raises(SpecError) as caught:
        read_architecture(tmp_path)
    assert (caught.value.where or "").endswith("config.json:2:17")


def test_quantized_checkpoints_say_so() -> None:
    assert of().quantization is None
    assert of(quantization_config={"quant_method": "modelopt"}).quantization == "modelopt"
