"""Each field of the engine section changes what is built or served, or is refused by its name."""

from __future__ import annotations

import copy
from pathlib import PurePosixPath
from typing import Any

import pytest
from model_shapes import LLAMA_8B

from toolkit.engine import tensorrt
from toolkit.engine.nvidia.target import target_of
from toolkit.errors import UnsupportedError
from toolkit.repository.nvidia import preview_nvidia
from toolkit.spec.models import Deployment, Engine

LIMITS = {"max_batch_size": 64, "max_input_len": 3072, "max_seq_len": 4096, "max_num_tokens": 4096}
OTHER: dict[str, Any] = {
    "engine.limits.max_batch_size": 32,
    "engine.limits.max_input_len": 100,
    "engine.limits.max_seq_len": 5000,
    "engine.limits.max_num_tokens": 8192,
    "engine.parallelism.tensor": 2,
    "engine.parallelism.pipeline": 2,
    "engine.kv_cache.size": "2GiB",
    "engine.kv_cache.host_offload": "1GiB",
    "engine.kv_cache.tokens_per_block": 64,
    "engine.kv_cache.free_memory_fraction": 0.5,
    "engine.batching.policy": "max_utilization",
    "engine.batching.chunking": "equal_progress",
    "engine.batching.queue_delay": "1ms",
    "engine.batching.queue_timeout": "1s",
    "engine.batching.max_queue_size": 7,
    "engine.batching.stream_interval": 3,
    "engine.batching.responses_per_core": 10,
    "engine.speculation": {"tensorrt": {"method": "lookahead"}, "pytorch": {"method": "ngram"}},
    "engine.guided_decoding": "xgrammar",
    "engine.lora": {"adapters": {"sql": "./sql"}},
    "engine.cuda_graphs.enabled": {"tensorrt": True, "pytorch": False},
    "engine.cuda_graphs.batch_sizes": (1, 2),
    "engine.cuda_graphs.cache_size": 4,
    "engine.tensorrt.opt_num_tokens": 8,
    "engine.tensorrt.gemm_plugin": "disable",
    "engine.tensorrt.workers": 2,
    "engine.pytorch.overlap_scheduler": False,
    "engine.pytorch.attention_backend": "vanilla",
    "engine.pytorch.moe_backend": "TRTLLM",
    "engine.dtype": "float16",
    "engine.threads": 4,
}
FP8 = {"weights": "fp8", "kv_cache": "fp8"}
FP8_ONLY = (
    "engine.tensorrt.fp8_context_attention",
    "engine.tensorrt.user_buffer",
    "engine.tensorrt.low_latency_gemm",
)
WITH: dict[str, dict[str, Any]] = {
    "engine.tensorrt.fp8_context_attention": {
        "kv_cache": {"reuse": False},
        "batching": {"chunked_prefill": False},
    },
    "engine.tensorrt.user_buffer": {
        "parallelism": {"tensor": 2},
        "tensorrt": {"reduce_fusion": True},
    },
    "engine.tensorrt.reduce_fusion": {"parallelism": {"tensor": 2}},
    "engine.parallelism.expert": {"parallelism": {"tensor": 2}},
}
"""What a field needs beside it, or the deployment file is no valid one."""


def leaves(section: Any, above: str) -> list[str]:
    found = []
    for name, value in section:
        path = f"{above}.{name}"
        found += leaves(value, path) if hasattr(value, "model_fields_set") else [path]
    return found


LEAVES = [
    path for path in leaves(Engine(), "engine") if path not in ("engine.runtime", "engine.release")
]


def default_of(path: str) -> Any:
    value: Any = Engine()
    for step in path.split(".")[1:]:
        value = getattr(value, step)
    return value


def put(engine: dict[str, Any], path: str, value: Any) -> None:
    *sections, last = path.split(".")[1:]
    for section in sections:
        engine = engine.setdefault(section, {})
    engine[last] = value


def everything(
    runtime: str, engine: dict[str, Any], formats: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Commands and texts."""
    ways = engine.get("parallelism", {})
    gpus = ways.get("tensor", 1) * ways.get("pipeline", 1)
    content = {
        "name": "chat",
        "model": {"source": "./m"},
        "quantization": formats,
        "engine": {"limits": LIMITS, **engine, "runtime": runtime},
        "serving": {"gpu": "H100", "gpus": list(range(gpus))},
    }
    made = Deployment.model_validate(content)
    texts = preview_nvidia(made, LLAMA_8B, PurePosixPath("/r"))
    if runtime == "pytorch":
        return [], texts
    release = target_of(made).release
    return [str(each) for each in tensorrt.build_commands(made, LLAMA_8B, release)], texts


@pytest.mark.parametrize("runtime", ["tensorrt", "pytorch"])
@pytest.mark.parametrize("path", LEAVES)
def test_no_field_is_lost(runtime: str, path: str) -> None:
    engine: dict[str, Any] = {"limits": dict(LIMITS), **copy.deepcopy(WITH.get(path, {}))}
    formats = FP8 if path in FP8_ONLY else {}
    try:
        before = everything(runtime, copy.deepcopy(engine), formats)
    except UnsupportedError:
        return  # what the field needs is refused already
    default = default_of(path)
    value = OTHER.get(path, not default if isinstance(default, bool) else 2)
    if isinstance(value, dict) and runtime in value:
        value = value[runtime]
    put(engine, path, value)
    try:
        after = everything(runtime, engine, formats)
    except UnsupportedError as error:
        # Of two fields that clash the message may name the other one.
        assert (error.where or "").split(".")[:2] == path.split(".")[:2]  # noqa: PT017
    else:
        assert after != before
