"""Weights and KV cache of public models against the sizes that are published.

Weights: ``total_size`` of each repository's model.safetensors.index.json on the Hugging Face Hub;
shapes: its config.json (the keys that count). KV cache: see PUBLISHED_KV.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolkit.capacity.weights import weight_bytes
from toolkit.checkpoint.architecture import Architecture, architecture_of
from toolkit.engine.nvidia.kv import kv_bytes_per_token
from toolkit.quantize.check import check
from toolkit.quantize.formats import KV_FORMATS
from toolkit.spec.models import Parallelism, Quantization

MODELS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "published_models.json").read_text()
)
BY_NAME = {model["model"]: model for model in MODELS}
WITHIN = 0.02

# Bytes of one token in 16 bit. Qwen3 and Llama-3.1-70B: LMCache's FAQ (GiB of 1000 tokens).
# Llama-3-8B and -70B, of the same shape as 3.1: MiB of 2048 tokens that llama.cpp reports,
# huggingface.co/dranger003/c4ai-command-r-v01-iMat.GGUF/discussions/6.
PUBLISHED_KV = [
    ("Qwen/Qwen3-8B", 0.1373 * 2**30 / 1000),
    ("Qwen/Qwen3-32B", 0.2441 * 2**30 / 1000),
    ("meta-llama/Llama-3.1-70B", 0.3052 * 2**30 / 1000),
    ("meta-llama/Llama-3.1-8B", 256 * 2**20 / 2048),
    ("meta-llama/Llama-3.1-70B", 640 * 2**20 / 2048),
    ("mistralai/Mistral-7B-v0.3", 0.5 * 2**30 / 4096),
]


# The same of models whose weights are not among the ten: the sizes that decide, and bytes of one
# token in 16 bit. Llama-3.2, OLMo 2, GPT-2: sebastianraschka.com/llm-architecture-gallery. Llama 2:
# systemoverflow.com, "What is KV Cache". Mistral, Mixtral (4096 tokens):
# dev.to/jagmarques, "KV Cache Memory Calculator".
MORE_KV = [
    ("meta-llama/Llama-3.2-1B", (2048, 16, 32, 8), 32 * 2**10),
    ("allenai/OLMo-2-1124-7B", (4096, 32, 32, 32), 512 * 2**10),
    ("openai-community/gpt2-xl", (1600, 48, 25, 25), 300 * 2**10),
    ("meta-llama/Llama-2-7b", (4096, 32, 32, 32), 524_288),
    ("mistralai/Mixtral-8x7B-v0.1", (4096, 32, 32, 8), 0.5 * 2**30 / 4096),
]


def arch_of(model: dict[str, Any]) -> Architecture:
    return architecture_of(model["config"], {})


@pytest.mark.parametrize("name", BY_NAME)
def test_weights_are_as_published(name: str) -> None:
    arch = arch_of(BY_NAME[name])
    resolved = check(arch, Quantization())
    planned = weight_bytes(arch, resolved, Parallelism(), element=2, shared_tables=True)
    assert planned.total == pytest.approx(BY_NAME[name]["bytes"], rel=WITHIN)
    # The shapes that a checkpoint is verified against have no tensor too many and none too few.
    assert 2 * arch.parameters == BY_NAME[name]["bytes"]


@pytest.mark.parametrize("tensor", [2, 4])
@pytest.mark.parametrize("name", BY_NAME)
def test_gpus_of_a_replica_hold_the_model_between_them(name: str, tensor: int) -> None:
    arch = arch_of(BY_NAME[name])
    if arch.num_kv_heads < tensor:
        arch = replace(arch, num_kv_heads=tensor)  # a KV head is never cut: each GPU holds one
    ways = Parallelism(tensor=tensor)
    one = weight_bytes(arch, check(arch, Quantization()), ways, element=2, shared_tables=True)
    assert tensor * one.total == pytest.approx(2 * arch.parameters, rel=WITHIN)


@pytest.mark.parametrize(("name", "published"), PUBLISHED_KV)
def test_kv_cache_is_as_published(name: str, published: float) -> None:
    planned = kv_bytes_per_token(arch_of(BY_NAME[name]), KV_FORMATS["none"], Parallelism())
    assert planned == pytest.approx(published, rel=WITHIN)


@pytest.mark.parametrize(("name", "sizes", "published"), MORE_KV)
def test_kv_cache_of_other_models_is_as_published(
    name: str, sizes: tuple[int, int, int, int], published: float
) -> None:
    names = "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"
    config = {"model_type": "llama", "vocab_size": 32000, **dict(zip(names, sizes, strict=True))}
    planned = kv_bytes_per_token(architecture_of(config, {}), KV_FORMATS["none"], Parallelism())
    assert planned == pytest.approx(published, rel=WITHIN)


def test_there_are_ten_of_both() -> None:
    assert len(BY_NAME) == 10
    assert len({name for name, *_ in [*PUBLISHED_KV, *MORE_KV]}) == 10
