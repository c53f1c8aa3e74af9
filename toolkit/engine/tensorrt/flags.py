"""What ``trtllm-build`` is told, by the release's own flags.

Every flag comes from the release's table, with its type and choices; this module only decides
which fields of the deployment file count for which engine.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue

from toolkit.engine.nvidia.naming import field_value, is_default, named
from toolkit.engine.nvidia.refusal import refusal
from toolkit.engine.tensorrt.check import FP8_ATTENTION, paged_context_attention
from toolkit.quantize.check import ResolvedQuantization
from toolkit.releases import Release
from toolkit.spec.models import Engine

IN_FLIGHT: dict[str, JsonValue] = {
    "max_beam_width": 1,
    "gpt_attention_plugin": "auto",
    "remove_input_padding": "enable",
    "kv_cache_type": "paged",
}
"""What in-flight batching needs (docs/model_config.md of the Triton backend)."""

_GEMM = {"fp8": "disable", "nvfp4": "nvfp4"}
"""Matrix products by weight format; cuBLASLt (auto) elsewhere. TensorRT's own FP8 products are
faster at large batches, and NVFP4 has none but the plugin's (builder)."""

_ALWAYS = (
    "engine.limits.max_batch_size",
    "engine.limits.max_input_len",
    "engine.limits.max_seq_len",
    "engine.limits.max_num_tokens",
    "engine.kv_cache.tokens_per_block",
    "engine.tensorrt.multiple_profiles",
    "engine.tensorrt.reduce_fusion",
)
_WHERE_SET = (
    "engine.tensorrt.opt_num_tokens",
    "engine.tensorrt.user_buffer",
    "engine.tensorrt.low_latency_gemm",
)
_TARGET_ONLY = (
    "engine.tensorrt.gather_context_logits",
    "engine.tensorrt.gather_generation_logits",
)


def target_flags(
    engine: Engine, resolved: ResolvedQuantization, release: Release
) -> dict[str, JsonValue]:
    """Flags of the target's engine by name, without the directories.

    Raises:
        UnsupportedError: the release has no flag for what a field asks.
    """
    flags = _shared(engine, resolved, release)
    for field in _TARGET_ONLY:
        if not is_default(engine, field):
            flags |= _named(engine, field, release)
    flags |= dict(_lora(engine, release))
    flags |= dict(_speculation(engine, release))
    return _checked(flags, release)


def draft_flags(
    engine: Engine, resolved: ResolvedQuantization, release: Release
) -> dict[str, JsonValue]:
    """Flags of the draft model's engine: the target's limits, nothing to verify."""
    return _checked(_shared(engine, resolved, release), release)


def _shared(
    engine: Engine, resolved: ResolvedQuantization, release: Release
) -> dict[str, JsonValue]:
    weights, kv_cache = resolved.weights.name, resolved.kv_cache.name
    flags: dict[str, JsonValue] = {}
    for field in _ALWAYS:
        flags |= _named(engine, field, release)
    flags |= IN_FLIGHT
    paged = paged_context_attention(kv_cache, weights)
    flags["use_paged_context_fmha"] = "enable" if paged else "disable"
    # The builder keeps FP8 attention over paged blocks only together with an FP8 cache.
    fp8 = weights in FP8_ATTENTION and kv_cache == "fp8" and engine.tensorrt.fp8_context_attention
    flags["use_fp8_context_fmha"] = "enable" if fp8 else "disable"
    flags["gemm_plugin"] = engine.tensorrt.gemm_plugin or _GEMM.get(weights, "auto")
    for field in _WHERE_SET:
        if not is_default(engine, field):
            flags |= _named(engine, field, release)
    flags["workers"] = engine.tensorrt.workers or engine.parallelism.world_size
    return flags


def _named(engine: Engine, field: str, release: Release) -> dict[str, JsonValue]:
    return dict(named(release, field, field_value(engine, field), "build_flags"))


def _lora(engine: Engine, release: Release) -> Iterator[tuple[str, JsonValue]]:
    if engine.lora is None:
        return
    # The adapters themselves come with the requests: only their shape is built in.
    yield "lora_plugin", "auto"
    for field in ("engine.lora.max_rank", "engine.lora.target_modules"):
        value = field_value(engine, field)
        plain = list(value) if isinstance(value, tuple) else value
        yield from named(release, field, plain, "build_flags")


def _speculation(engine: Engine, release: Release) -> Iterator[tuple[str, JsonValue]]:
    chosen = engine.speculation
    if chosen is None:
        return
    method = release.speculation(chosen.method, "tensorrt")
    if method.build_mode is None:
        raise refusal(
            "engine.speculation.method",
            f"{release.title} builds no engine for {chosen.method}",
            "use draft_model",
        )
    yield "speculative_decoding_mode", method.build_mode
    yield "max_draft_len", chosen.max_draft_len


def _checked(flags: dict[str, JsonValue], release: Release) -> dict[str, JsonValue]:
    for name, value in flags.items():
        wrong = release.build_flag(name).problem(value)
        if wrong:
            raise refusal(
                "engine.tensorrt", f"--{name} {wrong}", f"see toolkit releases {release.version}"
            )
    return flags
