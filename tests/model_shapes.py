"""Shapes of published models."""

from __future__ import annotations

from dataclasses import replace

from toolkit.checkpoint.architecture import Architecture

LLAMA_8B = Architecture(
    family="llama",
    model_type="llama",
    hidden_size=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=14336,
    vocab_size=128256,
    max_position=131072,
    rope_theta=500000.0,
    rope_scaling=None,
    rms_norm_eps=1e-5,
    tied_embeddings=False,
    attention_bias=False,
    qk_norm=False,
    dtype="bfloat16",
    bos_token_id=128000,
    eos_token_ids=(128009,),
)
LLAMA_1B = replace(
    LLAMA_8B,
    hidden_size=2048,
    num_layers=16,
    head_dim=64,
    intermediate_size=8192,
    tied_embeddings=True,
)
LLAMA_70B = replace(
    LLAMA_8B, hidden_size=8192, num_layers=80, num_heads=64, intermediate_size=28672
)
QWEN3_32B = replace(
    LLAMA_8B,
    family="qwen3",
    model_type="qwen3",
    hidden_size=5120,
    num_layers=64,
    num_heads=64,
    intermediate_size=25600,
    vocab_size=151936,
    max_position=40960,
    qk_norm=True,
)
MIXTRAL = replace(
    LLAMA_8B,
    family="other",
    model_type="mixtral",
    vocab_size=32000,
    max_position=32768,
    rope_theta=1e6,
    num_experts=8,
)
