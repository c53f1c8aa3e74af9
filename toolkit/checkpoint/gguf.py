"""A GGUF file becomes a safetensors checkpoint: dequantized, renamed, without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint.architecture import (
    CONFIG,
    GENERATION_CONFIG,
    Architecture,
    architecture_of,
    expected_tensors,
)
from toolkit.checkpoint.files import ensure_space
from toolkit.checkpoint.gguf_config import config_of, generation_config_of
from toolkit.checkpoint.gguf_metadata import GgufFile, open_gguf
from toolkit.checkpoint.gguf_tokenizer import write_tokenizer
from toolkit.checkpoint.safetensors_file import TensorSpec, numpy_dtype
from toolkit.checkpoint.shards import SHARD_BYTES, write_weights
from toolkit.errors import UnsupportedError
from toolkit.progress import Progress
from toolkit.spec.units import format_size

if TYPE_CHECKING:
    from gguf import ReaderTensor
    from numpy.typing import NDArray

_BLOCK = 32 << 20
"""Bytes of float32 that are dequantized at once."""

_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAME = re.compile(r"^(?:blk\.(?P<layer>\d+)\.)?(?P<part>\w+)\.(?P<kind>weight|bias)$")
_CONSUMED = ("rope_freqs.weight",)


def convert(source: Path, out: Path, progress: Progress, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the checkpoint of the GGUF file ``source`` into the directory ``out``.

    Weights become bfloat16, or float16 where the file's own are (a half has more digits than
    bfloat16 keeps). They are dequantized block by block, so memory stays small for any model.

    Raises:
        SpecError: the file is damaged or incomplete.
        UnsupportedError: an architecture, variant, tensor or tokenizer that is not known here.
        EnvironmentError_: no space, or the package ``gguf`` is missing.
    """
    file = open_gguf(source)
    dtype = _dtype(file)
    config = config_of(file, dtype)
    arch = architecture_of(config, {}, where=str(source))
    names = _checked_names(file, arch)
    code = "F16" if dtype == "float16" else "BF16"
    specs = {name: TensorSpec(code, shape) for name, shape in expected_tensors(arch).items()}
    total = sum(spec.nbytes for spec in specs.values())
    ensure_space(out, total)
    write_tokenizer(file, out)
    _write_json(out / CONFIG, config)
    _write_json(out / GENERATION_CONFIG, generation_config_of(file))

    def values(name: str) -> Iterator[NDArray[Any]]:
        tensor = file.tensors[names[name]]
        return _values(tensor, _rows(tensor, name, file.architecture, arch), dtype)

    progress.start(f"dequantize {source.name.lstrip('.')}", total, "B")
    write_weights(out, specs, values, progress, shard_bytes=shard_bytes)
    progress.finish(format_size(total))


def _dtype(file: GgufFile) -> str:
    from gguf import GGMLQuantizationType

    embedding = file.tensors.get("blk.0.attn_q.weight")
    half = embedding is not None and embedding.tensor_type == GGMLQuantizationType.F16
    return "float16" if half else "bfloat16"


def _checked_names(file: GgufFile, arch: Architecture) -> dict[str, str]:
    """GGUF's name of each of the checkpoint's tensors; both sides must be covered wholly."""
    names = {}
    for ours in file.tensors:
        if ours not in _CONSUMED:
            names[_checkpoint_name(ours, file)] = ours
    _check_types(file)
    expected = expected_tensors(arch)
    missing, extra = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
    if missing or extra:
        what = f"lacks {missing[0]}" if missing else f"has {names[extra[0]]}, which has no place"
        raise UnsupportedError(
            f"this file {what} in a {arch.model_type} model", where=str(file.path)
        )
    for name, shape in expected.items():
        found = tuple(int(size) for size in reversed(file.tensors[names[name]].shape))
        if found != shape:
            raise UnsupportedError(
                f"{names[name]} is {found}, its metadata asks for {shape}", where=str(file.path)
            )
    return names


def _check_types(file: GgufFile) -> None:
    """Refuse number formats that cannot be dequantized before a byte is written."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    for name, tensor in file.tensors.items():
        _, size = GGML_QUANT_SIZES[tensor.tensor_type]
        try:
            dequantize(np.zeros((1, size), np.uint8), tensor.tensor_type)
        except NotImplementedError:
            raise UnsupportedError(
                f"tensor {name!r} is {tensor.tensor_type.name}, which is not dequantized",
                where=str(file.path),
                hint="fetch the model as safetensors, or in another GGUF format",
            ) from None


def _checkpoint_name(name: str, file: GgufFile) -> str:
    match = _NAME.match(name)
    part = (_LAYER if match and match["layer"] else _TOP).get(match["part"] if match else "")
    if not match or not part:
        raise UnsupportedError(
            f"tensor {name!r} has no place in a {file.architecture} model", where=str(file.path)
        )
    prefix = f"model.layers.{match['layer']}." if match["layer"] else ""
    return f"{prefix}{part}.{match['kind']}"


def _rows(
    tensor: ReaderTensor, name: str, gguf_architecture: str, arch: Architecture
) -> NDArray[Any] | None:
    """Order of the rows that undoes llama.cpp's, which puts the two halves of a head together.

    Only its "llama" models are stored so (its rotary embedding turns neighbouring pairs).
    """
    import numpy as np

    heads = {"q_proj": arch.num_heads, "k_proj": arch.num_kv_heads}.get(name.split(".")[-2])
    if gguf_architecture != "llama" or heads is None:
        return None
    order = np.arange(heads * arch.head_dim).reshape(heads, arch.head_dim // 2, 2)
    rows: NDArray[Any] = order.swapaxes(1, 2).reshape(-1)
    return rows


def _values(tensor: ReaderTensor, rows: NDArray[Any] | None, dtype: str) -> Iterator[NDArray[Any]]:
    from gguf.quants import dequantize

    target = numpy_dtype(dtype)
    data = tensor.data
    if data.ndim == 1:
        flat = dequantize(data, tensor.tensor_type)
        yield (flat if rows is None else flat[rows]).astype(target)
        return
    step = max(1, _BLOCK // (4 * int(tensor.shape[0])))
    for begin in range(0, data.shape[0], step):
        block = data[begin : begin + step] if rows is None else data[rows[begin : begin + step]]
        yield dequantize(block, tensor.tensor_type).astype(target)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
