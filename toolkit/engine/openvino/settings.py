"""The deployment file's engine section for the CPU engine: honoured or refused by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from toolkit.checkpoint.architecture import Architecture
from toolkit.checkpoint.rope import OtherRope
from toolkit.errors import UnsupportedError
from toolkit.spec.models import DraftModel, Engine, NGram, Quantization, Speculation
from toolkit.spec.nvidia import CudaGraphs, PyTorch, TensorRT

TOKENS_PER_BLOCK = 32
"""Fixed by OpenVINO's paged attention on CPUs."""

FAMILIES = ("llama", "qwen2", "qwen3")

KvPrecision = Literal["f16", "u8"]


@dataclass(frozen=True)
class EngineSettings:
    """What the engine in the repository reads; the fields are those of its ``EngineConfig``."""

    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int
    policy: str
    chunked_prefill: bool
    max_queue_size: int
    stream_interval: int
    kv_cache_reuse: bool
    kv_cache_bytes: int | None
    kv_cache_fraction: float
    kv_cache_precision: KvPrecision
    tokens_per_block: int
    speculation: Literal["none", "draft_model", "ngram"]
    max_draft_len: int
    max_matching_ngram_size: int
    speculation_max_concurrency: int | None
    inference_precision: Literal["f32", "bf16"]
    threads: int | None

    def as_mapping(self) -> dict[str, object]:
        """Plain data for settings.json."""
        return asdict(self)


def engine_settings(
    engine: Engine, quantization: Quantization, arch: Architecture
) -> EngineSettings:
    """Map the deployment's ``engine`` and KV format onto the CPU engine.

    Raises:
        UnsupportedError: a field asks for what this runtime cannot do.
    """
    check(engine, quantization, arch)
    limits, cache, batching = engine.limits, engine.kv_cache, engine.batching
    speculation = engine.speculation
    return EngineSettings(
        max_batch_size=limits.max_batch_size,
        max_input_len=limits.max_input_len,
        max_seq_len=limits.max_seq_len,
        max_num_tokens=limits.max_num_tokens,
        policy=batching.policy,
        chunked_prefill=batching.chunked_prefill,
        max_queue_size=batching.max_queue_size,
        stream_interval=batching.stream_interval,
        kv_cache_reuse=cache.reuse,
        kv_cache_bytes=cache.size,
        kv_cache_fraction=cache.free_memory_fraction,
        kv_cache_precision="u8" if quantization.kv_cache in ("fp8", "int8") else "f16",
        tokens_per_block=cache.tokens_per_block,
        speculation=speculation.method if isinstance(speculation, DraftModel | NGram) else "none",
        max_draft_len=_drafts(speculation),
        max_matching_ngram_size=(
            speculation.max_matching_ngram_size if isinstance(speculation, NGram) else 3
        ),
        speculation_max_concurrency=(
            speculation.max_concurrency if isinstance(speculation, DraftModel | NGram) else None
        ),
        inference_precision="bf16" if engine.dtype == "bfloat16" else "f32",
        threads=engine.threads,
    )


def check(engine: Engine, quantization: Quantization, arch: Architecture) -> None:
    """Refuse what the CPU engine cannot do, in milliseconds and by the field's name.

    Raises:
        UnsupportedError: the first thing that cannot work.
    """
    _check_model(engine, arch)
    _check_engine(engine)
    if quantization.kv_cache == "nvfp4":
        raise _refusal(
            "quantization.kv_cache", "an nvfp4 KV cache needs a Blackwell GPU", "use fp8 or none"
        )


def _check_model(engine: Engine, arch: Architecture) -> None:
    if arch.family not in FAMILIES or arch.hidden_act != "silu":
        raise _refusal(
            "model.source",
            f"architecture {arch.model_type!r} is not built for the openvino runtime",
            f"use one of {', '.join(FAMILIES)}, or an NVIDIA runtime",
        )
    if isinstance(arch.rope_scaling, OtherRope):
        raise _refusal(
            "model.source",
            f"rope scaling {arch.rope_scaling.name!r} is not computed by the openvino runtime",
            "use a checkpoint with plain, linear, llama3 or yarn scaling",
        )
    longest = min(arch.max_position, arch.sliding_window or arch.max_position)
    if engine.limits.max_seq_len > longest:
        raise _refusal(
            "engine.limits.max_seq_len",
            f"{engine.limits.max_seq_len} tokens exceed the model's context of {longest}",
            f"lower it to {longest} or less",
        )


def _check_engine(engine: Engine) -> None:
    cache = engine.kv_cache
    if cache.tokens_per_block != TOKENS_PER_BLOCK:
        raise _refusal(
            "engine.kv_cache.tokens_per_block",
            f"the openvino runtime has blocks of {TOKENS_PER_BLOCK} tokens",
            f"set it to {TOKENS_PER_BLOCK}",
        )
    if cache.host_offload:
        raise _refusal(
            "engine.kv_cache.host_offload",
            "the openvino runtime's KV cache is in host memory already",
            "remove it, or raise engine.kv_cache.size",
        )
    if engine.parallelism.tensor * engine.parallelism.pipeline != 1:
        raise _refusal(
            "engine.parallelism",
            "the openvino runtime runs on one machine's cores, not spread over devices",
            "set tensor and pipeline to 1",
        )
    if engine.dtype == "float16":
        raise _refusal(
            "engine.dtype", "CPUs compute in float32 or bfloat16", "use float32, bfloat16 or auto"
        )
    if not isinstance(engine.speculation, DraftModel | NGram | None):
        raise _refusal(
            "engine.speculation.method",
            f"{engine.speculation.method} is not available in the openvino runtime",
            "use draft_model or ngram",
        )
    _check_nvidia_only(engine)
    _check_step(engine)


def _check_nvidia_only(engine: Engine) -> None:
    batching, graphs = engine.batching, engine.cuda_graphs
    asked = {
        "engine.parallelism.attention_data_parallel": engine.parallelism.attention_data_parallel,
        "engine.batching.chunking": batching.chunking is not None,
        "engine.batching.queue_delay": batching.queue_delay > 0,
        "engine.batching.queue_timeout": batching.queue_timeout is not None,
        "engine.guided_decoding": engine.guided_decoding is not None,
        "engine.lora": engine.lora is not None,
        "engine.cuda_graphs": graphs != CudaGraphs(enabled=graphs.enabled) or bool(graphs.enabled),
        "engine.tensorrt": engine.tensorrt != TensorRT(),
        "engine.pytorch": engine.pytorch != PyTorch(),
    }
    for where, wanted in asked.items():
        if wanted:
            hint = "remove it, or use an NVIDIA runtime"
            if where.endswith("queue_timeout"):
                hint = "use serving.default_deadline, which counts the wait too"
            raise _refusal(where, "the openvino runtime does not have this", hint)


def _check_step(engine: Engine) -> None:
    """One step must hold a token of every request with its drafts, and a whole unsplit prompt."""
    limits, drafts = engine.limits, _drafts(engine.speculation)
    least = limits.max_batch_size * (drafts + 1)
    if limits.max_num_tokens < least:
        raise _refusal(
            "engine.limits.max_num_tokens",
            f"one step of {limits.max_batch_size} requests needs {least} tokens"
            + (f" ({drafts} drafts each)" if drafts else ""),
            f"raise it to {least} or lower max_batch_size",
        )
    if not engine.batching.chunked_prefill and limits.max_num_tokens < limits.max_input_len:
        raise _refusal(
            "engine.limits.max_num_tokens",
            f"without chunked_prefill a prompt of {limits.max_input_len} tokens must fit a step",
            "raise it to max_input_len or turn batching.chunked_prefill on",
        )


def _drafts(speculation: Speculation | None) -> int:
    return speculation.max_draft_len if isinstance(speculation, DraftModel | NGram) else 0


def _refusal(where: str, message: str, hint: str) -> UnsupportedError:
    return UnsupportedError(message, where=where, hint=hint)
