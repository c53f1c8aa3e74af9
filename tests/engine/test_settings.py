"""Every field of the engine section is honoured by the CPU engine or refused by its name."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from model_shapes import LLAMA_8B
from paged_engine.config import EngineConfig

from toolkit.checkpoint.rope import OtherRope
from toolkit.engine.openvino import EngineSettings, check_draft, engine_settings
from toolkit.errors import UnsupportedError
from toolkit.spec.models import Engine, Quantization

ARCH = replace(
    LLAMA_8B,
    hidden_size=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    vocab_size=49152,
    max_position=8192,
)


def settings(quantization: dict[str, Any] | None = None, **engine: Any) -> EngineSettings:
    return engine_settings(Engine(**engine), Quantization(**(quantization or {})), ARCH)


def test_the_engine_understands_exactly_what_is_written() -> None:
    assert [f.name for f in fields(EngineSettings)] == [f.name for f in fields(EngineConfig)]
    EngineConfig.from_mapping(settings().as_mapping())


def test_fields_arrive_where_they_belong() -> None:
    got = settings(
        limits={
            "max_batch_size": 8,
            "max_input_len": 100,
            "max_seq_len": 200,
            "max_num_tokens": 64,
        },
        kv_cache={"reuse": False, "size": "1GiB", "free_memory_fraction": 0.5},
        batching={
            "policy": "max_utilization",
            "chunked_prefill": True,
            "max_queue_size": 9,
            "stream_interval": 2,
        },
        speculation={
            "method": "ngram",
            "max_draft_len": 4,
            "max_matching_ngram_size": 2,
            "max_concurrency": 6,
        },
        threads=3,
        dtype="bfloat16",
    )
    assert got == EngineSettings(
        max_batch_size=8,
        max_input_len=100,
        max_seq_len=200,
        max_num_tokens=64,
        policy="max_utilization",
        chunked_prefill=True,
        max_queue_size=9,
        stream_interval=2,
        kv_cache_reuse=False,
        kv_cache_bytes=2**30,
        kv_cache_fraction=0.5,
        kv_cache_precision="f16",
        tokens_per_block=32,
        speculation="ngram",
        max_draft_len=4,
        max_matching_ngram_size=2,
        speculation_max_concurrency=6,
        inference_precision="bf16",
        threads=3,
    )


def test_an_eight_bit_kv_cache_is_carried_in_eight_bits() -> None:
    assert settings({"kv_cache": "fp8"}).kv_cache_precision == "u8"
    assert settings({"kv_cache": "int8"}).kv_cache_precision == "u8"


REFUSALS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("engine.kv_cache.tokens_per_block", {}, {"kv_cache": {"tokens_per_block": 64}}),
    ("engine.kv_cache.host_offload", {}, {"kv_cache": {"host_offload": "1GiB"}}),
    ("engine.parallelism", {}, {"parallelism": {"tensor": 2}}),
    ("engine.parallelism", {}, {"parallelism": {"pipeline": 2}}),
    ("engine.dtype", {}, {"dtype": "float16"}),
    (
        "engine.parallelism.attention_data_parallel",
        {},
        {"parallelism": {"attention_data_parallel": True}},
    ),
    ("engine.batching.chunking", {}, {"batching": {"chunking": "equal_progress"}}),
    ("engine.batching.queue_delay", {}, {"batching": {"queue_delay": "1ms"}}),
    ("engine.batching.queue_timeout", {}, {"batching": {"queue_timeout": "1s"}}),
    ("engine.guided_decoding", {}, {"guided_decoding": "xgrammar"}),
    ("engine.lora", {}, {"lora": {"adapters": {"sql": "./sql"}}}),
    ("engine.cuda_graphs", {}, {"cuda_graphs": {"enabled": True}}),
    ("engine.tensorrt", {}, {"tensorrt": {"reduce_fusion": True}}),
    ("engine.pytorch", {}, {"pytorch": {"overlap_scheduler": False}}),
    ("engine.speculation.method", {}, {"speculation": {"method": "eagle3", "source": "./e"}}),
    ("engine.speculation.method", {}, {"speculation": {"method": "lookahead"}}),
    (
        "engine.limits.max_num_tokens",
        {},
        {
            "limits": {"max_batch_size": 64, "max_num_tokens": 100},
            "speculation": {"method": "ngram", "max_draft_len": 5},
        },
    ),
    ("engine.limits.max_seq_len", {}, {"limits": {"max_seq_len": 9000}}),
    ("quantization.kv_cache", {"kv_cache": "nvfp4"}, {}),
]


@pytest.mark.parametrize(("where", "quantization", "engine"), REFUSALS)
def test_what_cannot_work_is_refused_by_name(
    where: str, quantization: dict[str, Any], engine: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedError) as refused:
        settings(quantization, **engine)
    assert refused.value.where == where
    assert refused.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "other", "model_type": "gpt2"},
        {"hidden_act": "gelu"},
        {"rope_scaling": OtherRope("longrope")},
    ],
)
def test_models_that_the_graph_does_not_cover_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError) as refused:
        engine_settings(Engine(), Quantization(), replace(ARCH, **changes))
    assert refused.value.where == "model.source"


def test_a_sliding_window_bounds_the_context() -> None:
    with pytest.raises(UnsupportedError, match="context of 2048"):
        engine_settings(Engine(), Quantization(), replace(ARCH, sliding_window=2048))


def test_a_draft_with_another_vocabulary_is_refused() -> None:
    check_draft(ARCH, ARCH)
    with pytest.raises(UnsupportedError, match="49152"):
        check_draft(ARCH, replace(ARCH, vocab_size=32000))
