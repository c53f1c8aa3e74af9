"""Bytes of a model's weights on the fullest GPU, from its shapes and number formats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia.kv import kv_heads_per_gpu
from toolkit.errors import UnsupportedError
from toolkit.quantize.check import ResolvedQuantization
from toolkit.quantize.formats import WeightFormatInfo
from toolkit.quantize.modules import LM_HEAD, linear_widths
from toolkit.spec.models import Parallelism

_SCALE_BYTES = {"int4_awq": 2, "w4a8_awq": 2, "nvfp4": 1}
"""Bytes of one block's scale: 16 bit for AWQ, FP8 for NVFP4; other formats keep a scale a row."""

_ROW_SCALE = 4
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_KEYS_AND_VALUES = ("k_proj", "v_proj")


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Bytes on one GPU: the linear layers, the tables for tokens, everything small."""

    layers: int
    tables: int

    @property
    def total(self) -> int:
        """Both."""
        return self.layers + self.tables


def weight_bytes(
    arch: Architecture,
    resolved: ResolvedQuantization,
    parallelism: Parallelism,
    *,
    element: int,
    shared_tables: bool,
) -> WeightBytes:
    """Weights of the pipeline stage that holds most.

    Layers and tables are divided by ``tensor`` (attention is not under attention data
    parallelism); a KV head is never cut.

    Args:
        arch: The model.
        resolved: Which layers are quantized, and how.
        parallelism: GPUs of a replica.
        element: Bytes of a weight that is not quantized.
        shared_tables: Tied embeddings are held once.

    Raises:
        UnsupportedError: a family whose layers are not known.
    """
    if arch.family == "other":
        raise UnsupportedError(
            f"the layers of model type {arch.model_type!r} are not known",
            hint="give the size of the checkpoint",
        )
    of_layer = partial(_layer_bytes, arch, resolved, frozenset(resolved.modules), parallelism)
    stages = [
        sum(of_layer(layer, element) for layer in layers)
        for layers in _stages(arch.num_layers, parallelism.pipeline)
    ]
    table = _table_bytes(arch, parallelism, element)
    head = _head_bytes(arch, resolved, parallelism, element)
    if len(stages) > 1:
        tables = [table, *[0] * (len(stages) - 2), head]
        by_stage = [WeightBytes(*both) for both in zip(stages, tables, strict=True)]
        return max(by_stage, key=lambda stage: stage.total)
    once = arch.tied_embeddings and shared_tables
    return WeightBytes(stages[0], table if once else table + head)


def scaled_bytes(total: int, weights: WeightFormatInfo, parallelism: Parallelism) -> WeightBytes:
    """Weights of a model whose layers are not known, from the size of its checkpoint.

    Takes every weight to be stored in 16 bit, quantized, and spread evenly.
    """
    share = weights.weight_bits / 16
    if weights.name in _SCALE_BYTES:
        share += _SCALE_BYTES[weights.name] / weights.gpu_blocks[-1] / 2
    return WeightBytes(int(total * share / parallelism.world_size), 0)


def _stages(layers: int, pipeline: int) -> list[range]:
    # The first stages take the layers that are left over, as torch.tensor_split does.
    short, more = divmod(layers, pipeline)
    ends = [0]
    for stage in range(pipeline):
        ends.append(ends[-1] + short + (stage < more))
    return [range(start, end) for start, end in pairwise(ends)]


def _layer_bytes(
    arch: Architecture,
    resolved: ResolvedQuantization,
    quantized: frozenset[str],
    parallelism: Parallelism,
    layer: int,
    element: int,
) -> int:
    total = (2 * arch.hidden_size + 2 * arch.head_dim * arch.qk_norm) * element
    prefix = f"model.layers.{layer}."
    for name, (inputs, outputs) in _layer_widths(arch).items():
        inputs, outputs = _of_one_gpu(arch, parallelism, name, inputs, outputs)
        info = resolved.weights if prefix + name in quantized else None
        total += _linear_bytes(inputs, outputs, info, resolved.block_size, element)
    return total


def _layer_widths(arch: Architecture) -> dict[str, tuple[int, int]]:
    prefix = "model.layers.0."
    widths = linear_widths(replace(arch, num_layers=1))
    return {name[len(prefix) :]: w for name, w in widths.items() if name.startswith(prefix)}


def _of_one_gpu(
    arch: Architecture, parallelism: Parallelism, name: str, inputs: int, outputs: int
) -> tuple[int, int]:
    leaf = name.rpartition(".")[2]
    if leaf in _ATTENTION and parallelism.attention_data_parallel:
        return inputs, outputs
    if leaf in _KEYS_AND_VALUES:
        return inputs, kv_heads_per_gpu(arch, parallelism) * arch.head_dim
    if leaf in ("o_proj", "down_proj"):
        return -(-inputs // parallelism.tensor), outputs
    return inputs, -(-outputs // parallelism.tensor)


def _linear_bytes(
    inputs: int, outputs: int, info: WeightFormatInfo | None, block: int | None, element: int
) -> int:
    if info is None:
        return inputs * outputs * element
    stored = inputs * outputs * info.weight_bits // 8
    if block and info.name in _SCALE_BYTES:
        return stored + -(-inputs // block) * outputs * _SCALE_BYTES[info.name]
    return stored + outputs * _ROW_SCALE


def _table_bytes(arch: Architecture, parallelism: Parallelism, element: int) -> int:
    parts = 1 if parallelism.attention_data_parallel else parallelism.tensor
    return -(-arch.vocab_size // parts) * arch.hidden_size * element


def _head_bytes(
    arch: Architecture, resolved: ResolvedQuantization, parallelism: Parallelism, element: int
) -> int:
    parts = 1 if parallelism.attention_data_parallel else parallelism.tensor
    rows = -(-arch.vocab_size // parts)
    info = resolved.weights if LM_HEAD in resolved.modules else None
    return _linear_bytes(arch.hidden_size, rows, info, resolved.block_size, element)
