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


def test_there_are_ten() -> None:
    assert len(BY_NAME) == 10
