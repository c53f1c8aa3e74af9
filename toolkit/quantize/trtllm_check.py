"""Read a TensorRT-LLM checkpoint back and compare it with the model it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.checkpoint.architecture import Architecture, read_json
from toolkit.checkpoint.safetensors_file import TensorInfo, read_header, read_tensor
from toolkit.errors import ValidationFailed
from toolkit.quantize.check import ResolvedQuantization
from toolkit.quantize.modules import LM_HEAD

_DTYPES = {"float32": "bfloat16"}
_SCALED = ("attention.qkv", "attention.dense", "mlp.fc", "mlp.gate", "mlp.proj")


def compare_export(
    arch: Architecture, resolved: ResolvedQuantization, out: Path, *, tensor: int, pipeline: int
) -> None:
    """Every field of config.json, and the tensors of every rank.

    Raises:
        ValidationFailed: naming each field or tensor that differs.
    """
    config = read_json(out / "config.json")
    problems = [
        f"{name} is {got!r}, the source has {wanted!r}"
        for name, got, wanted in _fields(arch, resolved, config, tensor, pipeline)
        if got != wanted
    ]
    for rank in range(tensor * pipeline):
        problems += _rank_problems(arch, resolved, out, rank, tensor, pipeline)
    if arch.tied_embeddings and not problems:
        problems += _tie_problems(out, tensor, pipeline)
    if problems:
        raise ValidationFailed(
            f"the TensorRT-LLM checkpoint differs from the source: {problems[0]}",
            where=str(out),
            hint="this is a defect of the export; please report it with the versions of "
            "nvidia-modelopt and transformers",
            details=problems[1:],
        )


def _fields(
    arch: Architecture, resolved: ResolvedQuantization, config: dict[str, Any], tp: int, pp: int
) -> Iterator[tuple[str, Any, Any]]:
    from toolkit.quantize.trtllm_export import rotary_scaling

    # AWQ pads the vocabulary to a multiple of 64 (ModelOpt ``pad_embedding_lm_head``).
    padded = -(-arch.vocab_size // 64) * 64 if "awq" in resolved.weights.name else arch.vocab_size
    expected = {
        "num_hidden_layers": arch.num_layers,
        "num_attention_heads": arch.num_heads,
        "num_key_value_heads": arch.num_kv_heads,
        "hidden_size": arch.hidden_size,
        "head_size": arch.head_dim,
        "intermediate_size": arch.intermediate_size,
        "vocab_size": padded,
        "max_position_embeddings": arch.max_position,
        "norm_epsilon": arch.rms_norm_eps,
        "hidden_act": arch.hidden_act,
        "rotary_base": arch.rope_theta,
        "rotary_scaling": rotary_scaling(arch),
        "position_embedding_type": "rope_gpt_neox",
        "dtype": _DTYPES.get(arch.dtype, arch.dtype),
        "bias": arch.output_bias,
        "mapping": {"world_size": tp * pp, "tp_size": tp, "pp_size": pp},
    }
    for name, wanted in expected.items():
        yield name, config.get(name), wanted
    quantization = config.get("quantization") or {}
    yield "quantization.quant_algo", quantization.get("quant_algo"), resolved.weights.quant_algo
    kv = quantization.get("kv_cache_quant_algo")
    yield "quantization.kv_cache_quant_algo", kv, resolved.kv_cache.quant_algo
    yield "quantization.group_size", quantization.get("group_size"), resolved.block_size
    if resolved.modules:
        excluded = LM_HEAD in quantization.get("exclude_modules", ())
        yield "quantization.exclude_modules has lm_head", excluded, LM_HEAD not in resolved.modules


def _rank_problems(
    arch: Architecture, resolved: ResolvedQuantization, out: Path, rank: int, tp: int, pp: int
) -> list[str]:
    path = out / f"rank{rank}.safetensors"
    if not path.exists():
        return [f"{path.name} is missing"]
    found = {info.name: info for info in read_header(path)}
    problems = []
    for name, values in _expected(arch, rank // tp, tp, pp).items():
        info = found.get(name)
        if info is None:
            problems.append(f"{path.name} lacks {name}")
        elif _values(info, resolved, name) != values:
            problems.append(f"{path.name}: {name} holds {_values(info, resolved, name)} values, "
                            f"the model {values}")  # fmt: skip
    for layer in range(arch.num_layers // pp):
        problems += _missing_scales(resolved, found, layer, rank // tp * arch.num_layers // pp,
                                    path.name)  # fmt: skip
    return problems


def _expected(arch: Architecture, stage: int, tp: int, pp: int) -> dict[str, int]:
    """Number of weights of each tensor on a rank of pipeline stage ``stage``."""
    hidden, inner = arch.hidden_size, arch.intermediate_size // tp
    queries = arch.num_heads * arch.head_dim // tp
    keys = arch.num_kv_heads * arch.head_dim // tp
    layer = {
        "attention.qkv.weight": (queries + 2 * keys) * hidden,
        "attention.dense.weight": queries * hidden,
        "mlp.fc.weight": inner * hidden,
        "mlp.gate.weight": inner * hidden,
        "mlp.proj.weight": inner * hidden,
        "input_layernorm.weight": hidden,
        "post_layernorm.weight": hidden,
    }
    if arch.attention_bias:
        layer["attention.qkv.bias"] = queries + 2 * keys
    tensors = {
        f"transformer.layers.{index}.{name}": size
        for index in range(arch.num_layers // pp)
        for name, size in layer.items()
    }
    if stage == 0:
        tensors["transformer.vocab_embedding.weight"] = arch.vocab_size * hidden // tp
    if stage == pp - 1:
        tensors["transformer.ln_f.weight"] = hidden
        tensors["lm_head.weight"] = arch.vocab_size * hidden // tp
    return tensors


def _values(info: TensorInfo, resolved: ResolvedQuantization, name: str) -> int:
    packed = resolved.weights.weight_bits == 4 and info.dtype in ("I8", "U8")
    return info.elements * (2 if packed and name.endswith(".weight") else 1)


def _missing_scales(
    resolved: ResolvedQuantization,
    found: dict[str, TensorInfo],
    layer: int,
    first: int,
    file: str,
) -> Iterator[str]:
    prefix = f"transformer.layers.{layer}"
    if f"model.layers.{first + layer}.mlp.down_proj" in resolved.modules and all(
        f"model.layers.{first + layer}.{name}" in resolved.modules
        for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj")
    ):
        for name in _SCALED:
            needed = [f"{prefix}.{name}.weights_scaling_factor"]
            if resolved.weights.activation != "none":
                needed.append(f"{prefix}.{name}.activation_scaling_factor")
            yield from (f"{file} lacks {tensor}" for tensor in needed if tensor not in found)
    if resolved.kv_cache.name != "none":
        tensor = f"{prefix}.attention.kv_cache_scaling_factor"
        if tensor not in found:
            yield f"{file} lacks {tensor}"


def _tie_problems(out: Path, tp: int, pp: int) -> Iterator[str]:
    import numpy as np

    for rank in range(tp):
        first = out / f"rank{rank}.safetensors"
        last = out / f"rank{rank + tp * (pp - 1)}.safetensors"
        table = _read(first, "transformer.vocab_embedding.weight")
        head = _read(last, "lm_head.weight")
        if not np.array_equal(table.view(np.uint8), head.view(np.uint8)):
            yield f"{last.name}: lm_head differs from the embedding table it is tied to"


def _read(path: Path, name: str) -> Any:
    info = next(info for info in read_header(path) if info.name == name)
    return read_tensor(path, info)
