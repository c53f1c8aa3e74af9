"""Small checkpoints with real tensors, written with numpy only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from toolkit.checkpoint.architecture import architecture_of, expected_tensors

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 24},
}


def tiny_config(family: str = "llama", **changes: Any) -> dict[str, Any]:
    """config.json of a model with two layers and a vocabulary of 64."""
    return {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
        **CONFIGS[family],
        **changes,
    }


def tiny_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random bfloat16 values for every tensor that the config asks for."""
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(shape).astype(bfloat16)
        for name, shape in expected_tensors(architecture_of(config, {})).items()
    }


def tiny_tokenizer(path: Path, size: int = 60) -> None:
    """A byte-level tokenizer with ``size`` tokens, real but of few words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())[:size]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path))


def write_checkpoint(
    directory: Path, family: str = "llama", *, shards: int = 1, seed: int = 0, **changes: Any
) -> Path:
    """A whole checkpoint; ``changes`` go into config.json before tensors are made of it."""
    directory.mkdir(parents=True, exist_ok=True)
    config = tiny_config(family, **changes)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3]}))
    (directory / "tokenizer_config.json").write_text("{}")
    tiny_tokenizer(directory / "tokenizer.json")
    write_shards(directory, tiny_tensors(config, seed), shards)
    return directory


def write_shards(directory: Path, tensors: dict[str, np.ndarray], shards: int) -> None:
    """One safetensors file, or several with an index, written by the reference library."""
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
