"""The graph builder computes what transformers computes, for every family and rope scaling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from toolkit.checkpoint.architecture import read_architecture
from toolkit.engine.openvino import compile_checkpoint
from toolkit.progress import Silent

TOKENS = 48
COMMON = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"tie_word_embeddings": False}),
    "llama tied": ("Llama", {"tie_word_embeddings": True}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3 rope": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "linear rope": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    "yarn rope": (
        "Qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": False}),
    "qwen3 wide heads": ("Qwen3", {"head_dim": 32, "num_key_value_heads": 4}),
}


def write_model(family: str, overrides: dict[str, Any], path: Path) -> Any:
    """A small random model with every parameter away from its default."""
    torch.manual_seed(7)
    config = getattr(transformers, f"{family}Config")(**{**COMMON, **overrides})
    model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1))
    model.save_pretrained(path)
    return model


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    import openvino as ov

    family, overrides = CASES[name]
    model = write_model(family, overrides, tmp_path / "checkpoint")
    (tmp_path / "engine").mkdir()
    compile_checkpoint(tmp_path / "checkpoint", tmp_path / "engine", progress=Silent())

    compiled = ov.Core().compile_model(
        tmp_path / "engine" / "openvino_model.xml",
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
    )
    request = compiled.create_infer_request()
    ids = np.random.default_rng(3).integers(0, COMMON["vocab_size"], (2, TOKENS))
    got = np.concatenate(
        [run(request, ids, 0, TOKENS - 5), run(request, ids, TOKENS - 5, TOKENS)], axis=1
    )
    with torch.no_grad():
        expected = model(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(got, expected, atol=2e-3, rtol=2e-3)


def run(request: Any, ids: Any, start: int, end: int) -> Any:
    """Logits of tokens ``start`` to ``end``, after those before are in the cache."""
    batch = ids.shape[0]
    outputs = request.infer(
        {
            "input_ids": ids[:, start:end],
            "attention_mask": np.ones((batch, end), np.int64),
            "position_ids": np.tile(np.arange(start, end), (batch, 1)),
            "beam_idx": np.arange(batch, dtype=np.int32),
        }
    )
    return outputs["logits"].copy()


def test_architecture_of_the_cases_is_read_back(tmp_path: Path) -> None:
    write_model("Qwen3", CASES["qwen3"][1], tmp_path)
    arch = read_architecture(tmp_path)
    assert arch.qk_norm
    assert not arch.tied_embeddings
    assert arch.head_dim == 32
