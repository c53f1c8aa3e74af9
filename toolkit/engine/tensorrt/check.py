"""What an engine cannot do, refused before anything is built.

``trtllm-build`` changes some requests with nothing but a warning in its log (attention over paged
blocks is switched off, limits are clipped). Rules marked "builder" are those of
``tensorrt_llm/builder.py`` at 008b2b8d23af and ``tensorrt_llm/_common.py``: what would be changed
in silence is refused here by name.
"""

from __future__ import annotations

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia.checks import check_common
from toolkit.engine.nvidia.refusal import refusal
from toolkit.engine.nvidia.target import NvidiaRuntime, Target
from toolkit.engine.tensorrt.trees import check_tree
from toolkit.quantize.check import ResolvedQuantization
from toolkit.quantize.trtllm_export import check_export
from toolkit.releases import Release
from toolkit.spec.gpus import Gpu
from toolkit.spec.models import (
    DraftModel,
    Eagle,
    Engine,
    Medusa,
    Quantization,
    WeightFormat,
)
from toolkit.spec.nvidia import PyTorch

FP8_ATTENTION: tuple[WeightFormat, ...] = ("fp8", "w4a8_awq", "nvfp4")
"""Weight formats whose prefill attention may compute in FP8 (builder)."""

_RUNTIME: NvidiaRuntime = "tensorrt"
_MAX_EAGLE_BATCH = 512


def check(
    engine: Engine,
    quantization: Quantization,
    arch: Architecture,
    release: Release,
    gpu: Gpu | None = None,
    *,
    draft: Architecture | None = None,
) -> ResolvedQuantization:
    """Refuse in milliseconds what cannot be built or served; decide what was ``auto``.

    Args:
        engine: The deployment's engine section.
        quantization: Its quantization section.
        arch: The target model.
        release: The release that builds and serves.
        gpu: The GPU to serve on, if it is known.
        draft: The draft model of draft-model speculation, if its checkpoint is there.

    Raises:
        SpecError, UnsupportedError: the first thing that cannot work, with what would.
    """
    target = Target(_RUNTIME, release, gpu)
    settled = check_common(engine, quantization, arch, target, draft=draft)
    ways = engine.parallelism
    resolved = check_export(arch, settled, tensor=ways.tensor, pipeline=ways.pipeline)
    if draft is not None:
        check_export(draft, Quantization(), tensor=ways.tensor, pipeline=ways.pipeline)
    _check_only_pytorch(engine)
    _check_dtype(engine, arch)
    _check_paged_attention(engine, settled)
    _check_limits(engine)
    _check_speculation(engine, settled)
    _check_kernels(engine, settled, arch, gpu, release)
    _check_serving(engine, release)
    return resolved


def paged_context_attention(kv_cache: str, weights: str) -> bool:
    """Whether the builder leaves prefill attention over paged blocks on."""
    if kv_cache == "int8":
        return False
    return kv_cache != "fp8" or weights in FP8_ATTENTION


def _check_only_pytorch(engine: Engine) -> None:
    graphs = engine.cuda_graphs
    asked = {
        "engine.pytorch": engine.pytorch != PyTorch(),
        "engine.parallelism.attention_data_parallel": engine.parallelism.attention_data_parallel,
        "engine.kv_cache.partial_reuse": engine.kv_cache.reuse
        and not engine.kv_cache.partial_reuse,
        "engine.batching.chunking": engine.batching.chunking is not None,
        "engine.batching.stream_interval": engine.batching.stream_interval > 1,
        "engine.cuda_graphs.batch_sizes": graphs.batch_sizes is not None,
        "engine.cuda_graphs.padding": not graphs.padding,
        "engine.lora.max_on_gpu": engine.lora is not None and engine.lora.max_on_gpu is not None,
        "engine.lora.max_on_host": engine.lora is not None and engine.lora.max_on_host is not None,
    }
    for where, wanted in asked.items():
        if wanted:
            raise refusal(
                where,
                "only the pytorch runtime has this",
                "remove it, or set engine.runtime to pytorch",
            )
    if graphs.cache_size and not graphs.enabled:
        raise refusal(
            "engine.cuda_graphs.cache_size",
            "no graphs are recorded",
            "set engine.cuda_graphs.enabled to true, or remove it",
        )


def engine_dtype(arch: Architecture) -> str:
    """The type that a checkpoint is exported in: its own, if that has 16 bit."""
    return arch.dtype if arch.dtype in ("bfloat16", "float16") else "bfloat16"


def _check_dtype(engine: Engine, arch: Architecture) -> None:
    own = engine_dtype(arch)
    # TensorRT-LLM's own conversion of heads is told a type.
    free = isinstance(engine.speculation, Eagle | Medusa)
    if engine.dtype not in ("auto", own) and not free:
        raise refusal(
            "engine.dtype",
            f"engines compute in the type that the checkpoint is exported in, {own}",
            "set it to auto, or engine.runtime to pytorch",
        )


def _check_paged_attention(engine: Engine, quantization: Quantization) -> None:
    """What needs prefill attention over paged blocks, against what switches it off (builder)."""
    users = {
        "engine.kv_cache.reuse": engine.kv_cache.reuse,
        "engine.batching.chunked_prefill": engine.batching.chunked_prefill,
        "engine.speculation": isinstance(engine.speculation, DraftModel | Eagle),
    }
    needed = [field for field, wanted in users.items() if wanted]
    if not needed:
        return
    weights, kv_cache = quantization.weights, quantization.kv_cache
    if not paged_context_attention(kv_cache, weights):
        why = (
            f"with an {kv_cache} KV cache"
            if kv_cache == "int8"
            else f"with an fp8 KV cache and {weights} weights"
        )
        raise refusal(
            needed[0],
            f"it needs paged context attention, which engines do not have {why}",
            "set quantization.kv_cache to none"
            + ("" if kv_cache == "int8" else f", or weights to {' or '.join(FP8_ATTENTION)}")
            + f"; or turn off {' and '.join(needed)}",
        )
    if kv_cache == "fp8" and not engine.tensorrt.fp8_context_attention:
        raise refusal(
            "engine.tensorrt.fp8_context_attention",
            f"{needed[0]} with an fp8 KV cache needs it, and trtllm-build would turn it on",
            "remove it, or set quantization.kv_cache to none",
        )


def _check_limits(engine: Engine) -> None:
    """Limits that the builder would clip in silence (builder)."""
    limits, block = engine.limits, engine.kv_cache.tokens_per_block
    most = limits.max_seq_len * limits.max_batch_size
    if limits.max_num_tokens > most:
        raise refusal(
            "engine.limits.max_num_tokens",
            f"{limits.max_batch_size} requests of {limits.max_seq_len} tokens are {most} tokens",
            f"lower it to {most} or less",
        )
    if limits.max_num_tokens < block:
        raise refusal(
            "engine.limits.max_num_tokens",
            f"a step of {limits.max_num_tokens} tokens holds no block of {block}",
            f"raise it to {block} or more, or lower engine.kv_cache.tokens_per_block",
        )
    tuned = engine.tensorrt.opt_num_tokens
    if tuned is not None and tuned > limits.max_num_tokens:
        raise refusal(
            "engine.tensorrt.opt_num_tokens",
            f"{tuned} tokens exceed max_num_tokens ({limits.max_num_tokens})",
            f"lower it to {limits.max_num_tokens} or less",
        )


def _check_speculation(engine: Engine, quantization: Quantization) -> None:
    chosen = engine.speculation
    if chosen is None:
        return
    for field in ("gather_context_logits", "gather_generation_logits"):
        drafted = isinstance(chosen, DraftModel) or field == "gather_context_logits"
        if getattr(engine.tensorrt, field) and drafted:
            raise refusal(
                f"engine.tensorrt.{field}",
                "engines that verify drafts do not keep these logits",
                "remove it, or engine.speculation",
            )
    if getattr(chosen, "max_concurrency", None) is not None:
        raise refusal(
            "engine.speculation.max_concurrency",
            "engines do not pause speculation",
            "remove it, or set engine.runtime to pytorch",
        )
    if isinstance(chosen, Eagle | Medusa):
        _check_heads(chosen, engine, quantization)


def _check_heads(chosen: Eagle | Medusa, engine: Engine, quantization: Quantization) -> None:
    """Heads that are converted together with the target by TensorRT-LLM's own scripts."""
    if isinstance(chosen, Eagle) and engine.parallelism.pipeline > 1:
        raise refusal(
            "engine.parallelism.pipeline",
            "EAGLE is not computed over pipeline stages",
            "set pipeline to 1 and raise tensor",
        )
    if quantization.weights != "none" or quantization.kv_cache != "none":
        raise refusal(
            "quantization.weights" if quantization.weights != "none" else "quantization.kv_cache",
            f"a target with {chosen.method} heads is converted in 16 bit only",
            "set weights and kv_cache to none, or use draft_model",
        )
    check_tree(chosen)
    if isinstance(chosen, Eagle) and engine.limits.max_batch_size > _MAX_EAGLE_BATCH:
        raise refusal(
            "engine.limits.max_batch_size",
            f"EAGLE engines take {_MAX_EAGLE_BATCH} requests at most",
            f"lower it to {_MAX_EAGLE_BATCH} or less",
        )


def _check_kernels(
    engine: Engine,
    quantization: Quantization,
    arch: Architecture,
    gpu: Gpu | None,
    release: Release,
) -> None:
    chosen, weights = engine.tensorrt, quantization.weights
    # A target with EAGLE heads is an architecture of its own to the builder.
    plain = arch.family == "llama" and not isinstance(engine.speculation, Eagle)
    if chosen.reduce_fusion and (engine.parallelism.tensor == 1 or not plain):
        raise refusal(
            "engine.tensorrt.reduce_fusion",
            "it fuses the all-reduce of llama models, and trtllm-build would turn it off",
            "raise engine.parallelism.tensor of a llama model without EAGLE, or remove it",
        )
    needs = {
        "user_buffer": chosen.user_buffer and weights != "fp8",
        "low_latency_gemm": chosen.low_latency_gemm and weights != "fp8",
        "gemm_plugin": chosen.gemm_plugin in ("fp8", "nvfp4") and chosen.gemm_plugin != weights,
    }
    for field, broken in needs.items():
        if broken:
            wanted = chosen.gemm_plugin if field == "gemm_plugin" else "fp8"
            raise refusal(
                f"engine.tensorrt.{field}",
                f"it needs {wanted} weights, not {weights}",
                f"set quantization.weights to {wanted}, or remove it",
            )
    if chosen.low_latency_gemm and gpu is not None:
        flag = release.build_flag("low_latency_gemm_plugin")
        if gpu.compute_capability in flag.refused_on:
            raise refusal(
                "engine.tensorrt.low_latency_gemm",
                f"{flag.option} is refused on the {gpu.name}",
                "remove it",
            )


def _check_serving(engine: Engine, release: Release) -> None:
    """Values of Triton's parameters that the engine path does not take."""
    model = release.triton_model("tensorrt_llm")
    if engine.batching.policy not in model.parameter("batch_scheduler_policy").choices:
        raise refusal(
            "engine.batching.policy",
            f"{engine.batching.policy} is not a policy of in-flight batching",
            f"use {' or '.join(model.parameter('batch_scheduler_policy').choices)}",
        )
    chosen = engine.guided_decoding
    choices = model.parameter("guided_decoding_backend").choices
    if chosen is not None and choices and chosen not in choices:
        raise refusal(
            "engine.guided_decoding",
            f"engines are served with {' or '.join(choices)}, not with {chosen}",
            f"use {' or '.join(choices)}, or engine.runtime: pytorch",
        )
    if engine.lora is not None:
        known = release.build_flag("lora_target_modules").choices
        unknown = [name for name in engine.lora.target_modules if name not in known]
        if unknown:
            raise refusal(
                "engine.lora.target_modules",
                f"{release.title} has no module {', '.join(unknown)}",
                f"known: {', '.join(known)}",
            )
