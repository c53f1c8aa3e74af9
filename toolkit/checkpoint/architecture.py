"""What a checkpoint's config.json says about the model, as numbers and without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from toolkit.checkpoint.rope import RopeScaling, read_rope
from toolkit.errors import SpecError, UnsupportedError

Family: TypeAlias = Literal["llama", "qwen2", "qwen3", "other"]

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"

_FAMILIES: dict[str, Family] = {
    "llama": "llama",
    # Mistral's dense models have llama's tensors and graph; a window is kept apart.
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}


@dataclass(frozen=True)
class Architecture:
    """The shape of a decoder-only model.

    ``family`` names the graph ("other" where it is none that the toolkit builds itself),
    ``model_type`` is the config's own word. Sizes count elements, ``max_position`` and
    ``sliding_window`` tokens. ``attention_bias`` says that q, k and v have a bias,
    ``output_bias`` that o has one, ``qk_norm`` that q and k are normalized per head.
    """

    family: Family
    model_type: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position: int
    rope_theta: float
    rope_scaling: RopeScaling | None
    rms_norm_eps: float
    tied_embeddings: bool
    attention_bias: bool
    qk_norm: bool
    dtype: str
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    output_bias: bool = False
    mlp_bias: bool = False
    hidden_act: str = "silu"
    sliding_window: int | None = None
    quantization: str | None = None
    """Method that the config declares (``modelopt``, ``awq`` …); None for plain weights."""
    num_experts: int | None = None
    """Experts that a router chooses from in each mixture; None for a dense model."""
    mtp_layers: int = 0
    """Multi-token-prediction layers that the checkpoint brings."""

    @property
    def parameters(self) -> int:
        """Number of weights, from the shapes; tied embeddings count once.

        Raises:
            UnsupportedError: a family whose tensors are not known here.
        """
        return sum(_product(shape) for shape in expected_tensors(self).values())

    def kv_bytes_per_token(self, bytes_per_element: float) -> float:
        """Bytes of KV cache that one token takes over all layers.

        2 (keys and values) x layers x KV heads x head size x element size; a format of half a
        byte gives a fraction.
        """
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * bytes_per_element


def read_architecture(path: Path) -> Architecture:
    """The architecture of the checkpoint directory ``path``.

    Raises:
        SpecError: config.json is missing, is not JSON or lacks a size.
    """
    config = read_json(path / CONFIG)
    generation = path / GENERATION_CONFIG
    return architecture_of(
        config, read_json(generation) if generation.exists() else {}, where=str(path / CONFIG)
    )


def architecture_of(
    config: Mapping[str, Any], generation: Mapping[str, Any], *, where: str = CONFIG
) -> Architecture:
    """The architecture that the contents of config.json and generation_config.json describe.

    Raises:
        SpecError: a size is missing, of the wrong type or contradicts another.
    """
    fields = _Fields(config, where)
    model_type = fields.text("model_type")
    family = _FAMILIES.get(model_type, "other")
    hidden = fields.positive("hidden_size", "n_embd", "d_model")
    heads, kv_heads = _heads(fields)
    theta, scaling = read_rope(config, where)
    bias = family == "qwen2" or bool(config.get("attention_bias", False))
    return Architecture(
        family=family,
        model_type=model_type,
        hidden_size=hidden,
        num_layers=fields.positive("num_hidden_layers", "n_layer", "num_layers"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=fields.positive("head_dim", default=hidden // heads),
        intermediate_size=fields.positive("intermediate_size", "n_inner", default=4 * hidden),
        vocab_size=fields.positive("vocab_size"),
        max_position=fields.positive("max_position_embeddings", "n_positions", default=2048),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=fields.number("rms_norm_eps", default=1e-6),
        tied_embeddings=bool(config.get("tie_word_embeddings", family == "other")),
        attention_bias=bias,
        output_bias=bias and family in ("llama", "qwen3"),
        mlp_bias=bool(config.get("mlp_bias", False)),
        qk_norm=family == "qwen3",
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        hidden_act=str(config.get("hidden_act", "silu")),
        sliding_window=_sliding_window(config, model_type),
        bos_token_id=_first(_ids(config, generation, "bos_token_id", where)),
        eos_token_ids=_ids(config, generation, "eos_token_id", where),
        quantization=_quantization(config),
        num_experts=fields.optional("num_local_experts", "num_experts", "n_routed_experts"),
        mtp_layers=fields.optional("num_nextn_predict_layers") or 0,
    )


def _heads(fields: _Fields) -> tuple[int, int]:
    heads = fields.positive("num_attention_heads", "n_head", "num_heads")
    kv_heads = fields.positive("num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise SpecError(
            f"num_attention_heads ({heads}) is not a multiple of num_key_value_heads ({kv_heads})",
            where=fields.where,
        )
    return heads, kv_heads


def expected_tensors(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """Names and shapes (rows = outputs) of all weights, as published checkpoints name them.

    Raises:
        UnsupportedError: a family whose tensors are not known here.
    """
    if arch.family == "other":
        raise UnsupportedError(
            f"the tensors of model type {arch.model_type!r} are not known",
            hint=f"known are {', '.join(sorted(_FAMILIES))}",
        )
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (arch.vocab_size, arch.hidden_size)
    }
    layer = _layer_tensors(arch)
    for index in range(arch.num_layers):
        tensors |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    tensors["model.norm.weight"] = (arch.hidden_size,)
    if not arch.tied_embeddings:
        tensors["lm_head.weight"] = (arch.vocab_size, arch.hidden_size)
    return tensors


def _layer_tensors(arch: Architecture) -> dict[str, tuple[int, ...]]:
    hidden, inner = arch.hidden_size, arch.intermediate_size
    queries, keys = arch.num_heads * arch.head_dim, arch.num_kv_heads * arch.head_dim
    linears = {
        "self_attn.q_proj": (queries, hidden, arch.attention_bias),
        "self_attn.k_proj": (keys, hidden, arch.attention_bias),
        "self_attn.v_proj": (keys, hidden, arch.attention_bias),
        "self_attn.o_proj": (hidden, queries, arch.output_bias),
        "mlp.gate_proj": (inner, hidden, arch.mlp_bias),
        "mlp.up_proj": (inner, hidden, arch.mlp_bias),
        "mlp.down_proj": (hidden, inner, arch.mlp_bias),
    }
    tensors: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    for name, (outputs, inputs, bias) in linears.items():
        tensors[f"{name}.weight"] = (outputs, inputs)
        if bias:
            tensors[f"{name}.bias"] = (outputs,)
    if arch.qk_norm:
        tensors["self_attn.q_norm.weight"] = (arch.head_dim,)
        tensors["self_attn.k_norm.weight"] = (arch.head_dim,)
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in the file ``path``.

    Raises:
        SpecError: the file is missing, unreadable, not JSON, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(
            f"{path.name} is missing",
            where=str(path.parent),
            hint="a checkpoint directory holds config.json, *.safetensors and tokenizer.json",
        ) from None
    except json.JSONDecodeError as error:
        raise SpecError(
            f"{path.name} is not JSON: {error.msg}", where=f"{path}:{error.lineno}:{error.colno}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path.name} cannot be read: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise SpecError(f"{path.name} holds no JSON object", where=str(path))
    return content


@dataclass(frozen=True)
class _Fields:
    """Typed access to config.json; a field may have several historical names."""

    config: Mapping[str, Any]
    where: str

    def text(self, name: str) -> str:
        value = self.config.get(name)
        if not isinstance(value, str) or not value:
            raise SpecError(f"{name} is missing or no text", where=self.where)
        return value

    def optional(self, *names: str) -> int | None:
        """A count that may be left out; 0 counts as left out."""
        given = [name for name in names if self.config.get(name) not in (None, 0)]
        return self.positive(*given) if given else None

    def number(self, name: str, *, default: float) -> float:
        value = self.config.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise SpecError(f"{name} is {value!r}, expected one of (0, 1)", where=self.where)
        return float(value)

    def positive(self, *names: str, default: int | None = None) -> int:
        for name in names:
            value = self.config.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpecError(
                    f"{name} is {value!r}, expected a positive number", where=self.where
                )
            return value
        if default is None:
            raise SpecError(
                f"{names[0]} is missing",
                where=self.where,
                hint="only decoder-only text models with the usual config keys are supported",
            )
        return default


def _sliding_window(config: Mapping[str, Any], model_type: str) -> int | None:
    # Qwen's configs carry a window that is switched off; Mistral's is on when it is there.
    if model_type.startswith("qwen") and not config.get("use_sliding_window", False):
        return None
    window = config.get("sliding_window")
    return window if isinstance(window, int) and not isinstance(window, bool) else None


def _ids(
    config: Mapping[str, Any], generation: Mapping[str, Any], name: str, where: str
) -> tuple[int, ...]:
    # generation_config.json is what generation obeys; config.json often names one id only.
    for source in (generation, config):
        value = source.get(name)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(item) is int for item in ids):
            raise SpecError(f"{name} is {value!r}, expected a token's number", where=where)
        if ids:
            return tuple(ids)
    return ()


def _first(ids: tuple[int, ...]) -> int | None:
    return ids[0] if ids else None


def _quantization(config: Mapping[str, Any]) -> str | None:
    section = config.get("quantization_config")
    if not isinstance(section, Mapping):
        return None
    return str(section.get("quant_method") or "unknown")


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
