"""Tiny GGUF files, written with the package gguf the way llama.cpp's converter does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

LAYERS, HIDDEN, HEADS, KV_HEADS, INNER = 2, 64, 4, 2, 96
HEAD = HIDDEN // HEADS

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2", "12 3", "Â ½", "Ġ Â½"]
"""The last two make one token of the character for one half, then of it behind a space."""
TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *sorted(ByteLevel.alphabet()),
    *(merge.replace(" ", "") for merge in MERGES),
    "<tool>",
]
TYPES = [3, 3, 3, *[1] * (len(TOKENS) - 4), 4]


@dataclass
class TinyGguf:
    """What goes into the file; tests change it before :meth:`write`."""

    arch: str = "llama"
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0
    metadata: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    tied: bool = True
    model: str = "gpt2"
    pre: str = "smollm"
    tokens: list[str] = field(default_factory=lambda: list(TOKENS))
    types: list[int] = field(default_factory=lambda: list(TYPES))
    merges: list[str] = field(default_factory=lambda: list(MERGES))
    seed: int = 0

    def weights(self) -> dict[str, np.ndarray]:
        """Float32 weights by the checkpoint's names, before quantization."""
        random = np.random.default_rng(self.seed)
        vocabulary = len(self.tokens)
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (vocabulary, HIDDEN),
            "model.norm.weight": (HIDDEN,),
        }
        if not self.tied:
            shapes["lm_head.weight"] = (vocabulary, HIDDEN)
        for layer in range(LAYERS):
            prefix = f"model.layers.{layer}."
            shapes |= {prefix + name: shape for name, shape in self._layer().items()}
        return {
            name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
        }

    def _layer(self) -> dict[str, tuple[int, ...]]:
        keys = KV_HEADS * HEAD
        shapes: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (HIDDEN,),
            "post_attention_layernorm.weight": (HIDDEN,),
            "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            "self_attn.k_proj.weight": (keys, HIDDEN),
            "self_attn.v_proj.weight": (keys, HIDDEN),
            "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            "mlp.gate_proj.weight": (INNER, HIDDEN),
            "mlp.up_proj.weight": (INNER, HIDDEN),
            "mlp.down_proj.weight": (HIDDEN, INNER),
        }
        if self.arch == "qwen2":
            shapes |= {f"self_attn.{part}_proj.bias": (size,)
                       for part, size in (("q", HIDDEN), ("k", keys), ("v", keys))}  # fmt: skip
        if self.arch == "qwen3":
            shapes |= {"self_attn.q_norm.weight": (HEAD,), "self_attn.k_norm.weight": (HEAD,)}
        return shapes

    def write(self, path: Path) -> dict[str, np.ndarray]:
        """Write the file; returns what a converter must give back, as float32."""
        writer = gguf.GGUFWriter(path, self.arch)
        self._metadata(writer)
        expected = {}
        for name, value in self.weights().items():
            theirs = gguf_name(name)
            if theirs in self.without:
                continue
            if value.ndim == 1:
                writer.add_tensor(theirs, value)
                expected[name] = value
                continue
            stored = self._permuted(name, value)
            packed = gguf.quants.quantize(stored, self.quantization)
            writer.add_tensor(theirs, packed, raw_dtype=self.quantization)
            # Rows are quantized one by one, so the order of quantizing and permuting is free.
            again = gguf.quants.quantize(value, self.quantization)
            expected[name] = gguf.quants.dequantize(again, self.quantization)
        for name, value in self.extra.items():
            writer.add_tensor(name, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return expected

    def _permuted(self, name: str, value: np.ndarray) -> np.ndarray:
        # As LlamaModel.permute in llama.cpp's convert_hf_to_gguf.py.
        heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
        if self.arch != "llama" or heads is None:
            return value
        return value.reshape(heads, 2, HEAD // 2, HIDDEN).swapaxes(1, 2).reshape(value.shape)

    def _metadata(self, writer: gguf.GGUFWriter) -> None:
        writer.add_context_length(256)
        writer.add_embedding_length(HIDDEN)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(500000.0)
        writer.add_rope_dimension_count(HEAD)
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template("{{ messages }}")
        for key, value in self.metadata.items():
            _add(writer, key.replace("{arch}", self.arch), value)


def gguf_name(name: str) -> str:
    """llama.cpp's name of a checkpoint's tensor."""
    stem, kind = name.rsplit(".", 1)
    if stem in NAMES:
        return f"{NAMES[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.{kind}"


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
