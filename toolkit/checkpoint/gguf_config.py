"""From the metadata of a GGUF file to config.json and generation_config.json.

Keys and their meaning: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Whatever in
the file this does not understand is refused, because a model built without it would run and
be subtly wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.checkpoint.gguf_metadata import GgufFile
from toolkit.errors import SpecError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

_END_OF_GENERATION = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<|end|>",
)
"""Control tokens that end a turn or a text, whatever the metadata names (as llama.cpp does)."""

_CONTROL = 3


def config_of(file: GgufFile, dtype: str) -> dict[str, Any]:
    """The contents of config.json, in the layout that transformers 4 and 5 both read.

    Raises:
        UnsupportedError: an architecture or a variant of one that is not known here.
        SpecError: a field is missing.
    """
    arch = file.architecture
    if arch not in ARCHITECTURES:
        raise UnsupportedError(
            f"GGUF files of architecture {arch!r} are not converted",
            where=str(file.path),
            hint=f"known are {', '.join(ARCHITECTURES)}; or fetch the model as safetensors",
        )
    hidden = file.needed("{arch}.embedding_length", int)
    heads = file.needed("{arch}.attention.head_count", int)
    head_dim = file.get("{arch}.attention.key_length", int) or hidden // heads
    _refuse_variants(file, head_dim)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise SpecError("token_embd.weight is missing", where=str(file.path))
    return {
        "architectures": [ARCHITECTURES[arch]],
        "model_type": arch,
        "hidden_size": hidden,
        "intermediate_size": file.needed("{arch}.feed_forward_length", int),
        "num_hidden_layers": file.needed("{arch}.block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": file.get("{arch}.attention.head_count_kv", int) or heads,
        "head_dim": head_dim,
        "vocab_size": int(embedding.shape[-1]),
        "max_position_embeddings": file.needed("{arch}.context_length", int),
        "rms_norm_eps": file.needed("{arch}.attention.layer_norm_rms_epsilon", float),
        "rope_theta": file.get("{arch}.rope.freq_base", float) or 10000.0,
        "rope_scaling": _rope_scaling(file, head_dim),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **_biases(file, arch),
        **_token_ids(file),
        "dtype": dtype,
        "torch_dtype": dtype,
        "use_cache": True,
    }


def generation_config_of(file: GgufFile) -> dict[str, Any]:
    """The contents of generation_config.json: with every token that ends a generation."""
    ids = _token_ids(file)
    ends = end_tokens(file)
    if ends:
        ids["eos_token_id"] = ends[0] if len(ends) == 1 else list(ends)
    return ids


def end_tokens(file: GgufFile) -> tuple[int, ...]:
    """Tokens after which generation stops, the metadata's own first."""
    found = [
        token
        for key in ("eos_token_id", "eot_token_id", "eom_token_id")
        if (token := file.get(f"tokenizer.ggml.{key}", int)) is not None
    ]
    tokens = file.get("tokenizer.ggml.tokens", list) or []
    types = file.get("tokenizer.ggml.token_type", list) or []
    positions = {token: index for index, token in enumerate(tokens)}
    for name in _END_OF_GENERATION:
        index = positions.get(name)
        if index is not None and index < len(types) and types[index] == _CONTROL:
            found.append(index)
    return tuple(dict.fromkeys(found))


def _token_ids(file: GgufFile) -> dict[str, Any]:
    names = {
        "bos_token_id": "tokenizer.ggml.bos_token_id",
        "eos_token_id": "tokenizer.ggml.eos_token_id",
        "pad_token_id": "tokenizer.ggml.padding_token_id",
    }
    values = {name: file.get(key, int) for name, key in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def _biases(file: GgufFile, arch: str) -> dict[str, bool]:
    if arch == "qwen2":
        return {}
    biases = {"attention_bias": "blk.0.attn_q.bias" in file.tensors}
    if arch == "llama":
        biases["mlp_bias"] = "blk.0.ffn_gate.bias" in file.tensors
    return biases


def _refuse_variants(file: GgufFile, head_dim: int) -> None:
    rotated = file.get("{arch}.rope.dimension_count", int)
    value_length = file.get("{arch}.attention.value_length", int)
    context = file.needed("{arch}.context_length", int)
    variants = {
        "its weights split over several files": (file.get("split.count", int) or 1) > 1,
        "a mixture of experts": bool(file.get("{arch}.expert_count", int)),
        "rotary embedding of a part of each head": rotated not in (None, head_dim),
        "value heads of another size than key heads": value_length not in (None, head_dim),
        "a sliding attention window": (
            0 < (file.get("{arch}.attention.sliding_window", int) or 0) < context
        ),
        "scaled logits": file.get("{arch}.logit_scale", float) not in (None, 1.0),
    }
    for what, there in variants.items():
        if there:
            raise UnsupportedError(
                f"this GGUF file has {what}, which is not converted",
                where=str(file.path),
                hint="fetch the model as safetensors",
            )


def _rope_scaling(file: GgufFile, head_dim: int) -> dict[str, Any] | None:
    kind = file.get("{arch}.rope.scaling.type", str)
    factor = file.get("{arch}.rope.scaling.factor", float)
    factors = file.tensors.get("rope_freqs.weight")
    if factors is not None:
        return _llama3_scaling(file, factors.data, head_dim)
    if kind is None and (old := file.get("{arch}.rope.scale_linear", float)):
        return {"rope_type": "linear", "factor": old} if old != 1 else None
    if kind in (None, "none"):
        return None
    if kind == "linear" and factor:
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and factor:
        return _yarn_scaling(file, factor)
    raise UnsupportedError(f"rope scaling {kind!r} is not converted", where=str(file.path))


def _yarn_scaling(file: GgufFile, factor: float) -> dict[str, Any]:
    for key in ("attn_factor", "yarn_attn_factor"):
        if file.get(f"{{arch}}.rope.scaling.{key}", float) not in (None, 1.0):
            raise UnsupportedError("a YaRN attention factor is not converted", where=str(file.path))
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": file.needed(
            "{arch}.rope.scaling.original_context_length", int
        ),
        "beta_fast": file.get("{arch}.rope.scaling.yarn_beta_fast", float) or 32.0,
        "beta_slow": file.get("{arch}.rope.scaling.yarn_beta_slow", float) or 1.0,
    }


def _llama3_scaling(file: GgufFile, found: NDArray[Any], head_dim: int) -> dict[str, Any]:
    """GGUF keeps Llama 3.1's scaling as a factor per frequency; find the numbers behind it."""
    import numpy as np

    scaling = {
        "rope_type": "llama3",
        "factor": float(found.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    base = file.get("{arch}.rope.freq_base", float) or 10000.0
    expected = llama3_factors(scaling, base, head_dim)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-4):
        raise UnsupportedError(
            "its rope_freqs.weight is not that of Llama 3.1 to 3.3, so it is not converted",
            where=str(file.path),
            hint="fetch the model as safetensors",
        )
    return scaling


def llama3_factors(scaling: dict[str, Any], base: float, head_dim: int) -> NDArray[Any]:
    """What Llama 3.1's scaling divides each of the ``head_dim / 2`` frequencies by.

    With wavelength w and original context c: 1 where w < c / high, ``factor`` where w > c / low,
    and 1 / ((1 - s) / factor + s) with s = (c / w - low) / (high - low) between.
    """
    import numpy as np

    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    context, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    wavelength = 2 * np.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((context / wavelength - low) / (high - low), 0, 1)
    factors: NDArray[Any] = 1 / ((1 - smooth) / factor + smooth)
    return factors
