"""Bytes of KV cache that one token takes on one GPU."""

from __future__ import annotations

from toolkit.checkpoint.architecture import Architecture
from toolkit.quantize.formats import KvFormatInfo
from toolkit.spec.models import Parallelism

_SCALE = {"nvfp4": 1 / 16}
"""Bytes of scales for each element."""


def kv_bytes_per_token(
    arch: Architecture, kv_cache: KvFormatInfo, parallelism: Parallelism, *, element: int = 2
) -> float:
    """2 (keys and values) x layers x KV heads x head size x bytes, of the longest stage.

    Args:
        arch: The model.
        kv_cache: Format of the cache.
        parallelism: GPUs of one replica.
        element: Bytes of an element where the cache has no format of its own.
    """
    each = element if kv_cache.name == "none" else kv_cache.bits / 8
    each += _SCALE.get(kv_cache.name, 0)
    heads = kv_heads_per_gpu(arch, parallelism)
    return 2 * layers_per_stage(arch, parallelism) * heads * arch.head_dim * each


def kv_heads_per_gpu(arch: Architecture, parallelism: Parallelism) -> int:
    """KV heads whose keys and values one GPU holds; a head is never cut."""
    if parallelism.attention_data_parallel:
        return arch.num_kv_heads
    return -(-arch.num_kv_heads // parallelism.tensor)


def layers_per_stage(arch: Architecture, parallelism: Parallelism) -> int:
    """Layers of the longest pipeline stage."""
    return -(-arch.num_layers // parallelism.pipeline)
