"""A finished engine against the deployment that it was built for.

An engine that differs loads all the same, or fails in the server with words that name no field
(engines of another release, a cache that is not paged, blocks that cannot be reused). So every
limit that is rendered is compared with the engine's own config.json first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.tensorrt.check import engine_dtype
from toolkit.engine.tensorrt.engine_config import CONFIG, EngineConfig, read_engine_config
from toolkit.engine.tensorrt.flags import draft_flags, target_flags
from toolkit.errors import ValidationFailed
from toolkit.quantize.check import ResolvedQuantization
from toolkit.releases import Release
from toolkit.spec.models import Deployment, Eagle, Engine

_TYPES = ("auto", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class _Difference:
    what: str
    built: Any
    wanted: Any
    field: str

    def __str__(self) -> str:
        return f"{self.what} is {self.built}, the deployment needs {self.wanted} ({self.field})"


def check_engine(
    path: Path,
    deployment: Deployment,
    arch: Architecture,
    release: Release,
    resolved: ResolvedQuantization,
    *,
    role: Literal["target", "draft"] = "target",
) -> EngineConfig:
    """Read the engine directory ``path`` back and compare it.

    Args:
        path: Directory with config.json and ``rank0.engine`` to ``rankN.engine``.
        deployment: What is about to be served.
        arch: The model that the engine is of.
        release: The release of the container that will serve it.
        resolved: Formats of that model.
        role: The target, or the draft model of draft-model speculation.

    Raises:
        SpecError: config.json is missing or is not an engine's.
        ValidationFailed: something differs; every difference is in the message or the details.
    """
    config = read_engine_config(path)
    differences = [
        *map(str, _differences(config, deployment, arch, release, resolved, role)),
        *_missing_files(path, config),
    ]
    if differences:
        raise ValidationFailed(
            f"the {role} engine does not fit the deployment: {differences[0]}",
            where=str(path / CONFIG),
            hint="build it again (toolkit build), or change the deployment to what was built",
            details=differences[1:],
        )
    return config


def _differences(
    config: EngineConfig,
    deployment: Deployment,
    arch: Architecture,
    release: Release,
    resolved: ResolvedQuantization,
    role: Literal["target", "draft"],
) -> Iterator[_Difference]:
    engine = deployment.engine
    make = target_flags if role == "target" else draft_flags
    flags = make(engine, resolved, release)
    pairs = [
        ("tp_size", config.tensor, engine.parallelism.tensor, "engine.parallelism.tensor"),
        ("pp_size", config.pipeline, engine.parallelism.pipeline, "engine.parallelism.pipeline"),
        ("world_size", config.world_size, engine.parallelism.world_size, "engine.parallelism"),
        ("dtype", config.dtype, _dtype(engine, arch), "engine.dtype"),
        ("num_hidden_layers", config.num_layers, arch.num_layers, "model.source"),
        ("quant_algo", config.quant_algo, resolved.weights.quant_algo, "quantization.weights"),
        ("kv_cache_quant_algo", config.kv_cache_quant_algo, resolved.kv_cache.quant_algo,
         "quantization.kv_cache"),
        *_limits(config, deployment, flags, role),
    ]  # fmt: skip
    if not release.covers(config.version):
        yield _Difference("version", config.version, release.version, "engine.release")
    for what, built, wanted, field in pairs:
        if built != wanted:
            yield _Difference(what, built, wanted, field)
    yield from _plugins(config, flags, release)


def _dtype(engine: Engine, arch: Architecture) -> str:
    return engine_dtype(arch) if engine.dtype == "auto" else engine.dtype


def _limits(
    config: EngineConfig,
    deployment: Deployment,
    flags: dict[str, JsonValue],
    role: Literal["target", "draft"],
) -> Iterator[tuple[str, Any, Any, str]]:
    limits, speculation = deployment.engine.limits, deployment.engine.speculation
    drafts = speculation.max_draft_len if speculation and role == "target" else 0
    # The builder makes room for the drafts, and for the layers of an EAGLE tree.
    room = drafts + (speculation.num_layers if drafts and isinstance(speculation, Eagle) else 0)
    yield "max_batch_size", config.max_batch_size, limits.max_batch_size, _limit("max_batch_size")
    yield "max_input_len", config.max_input_len, limits.max_input_len, _limit("max_input_len")
    yield "max_seq_len", config.max_seq_len, limits.max_seq_len + room, _limit("max_seq_len")
    yield "max_num_tokens", config.max_num_tokens, limits.max_num_tokens, _limit("max_num_tokens")
    yield "max_beam_width", config.max_beam_width, flags["max_beam_width"], "engine.limits"
    yield "kv_cache_type", config.kv_cache_type, flags["kv_cache_type"], "engine.kv_cache"
    mode = flags.get("speculative_decoding_mode")
    yield "speculative_decoding_mode", config.speculative_mode, mode, "engine.speculation.method"
    yield "max_draft_len", config.max_draft_len, drafts, "engine.speculation.max_draft_len"
    for name in ("gather_context_logits", "gather_generation_logits"):
        yield name, getattr(config, name), bool(flags.get(name)), f"engine.tensorrt.{name}"
    tuned = flags.get("opt_num_tokens")
    if tuned is not None:
        yield "opt_num_tokens", config.opt_num_tokens, tuned, "engine.tensorrt.opt_num_tokens"
    if "max_lora_rank" in flags:
        rank, modules = flags["max_lora_rank"], flags["lora_target_modules"]
        yield "max_lora_rank", config.max_lora_rank, rank, "engine.lora.max_rank"
        built = list(config.lora_target_modules)
        yield "lora_target_modules", built, modules, "engine.lora.target_modules"


def _limit(name: str) -> str:
    return f"engine.limits.{name}"


def _plugins(
    config: EngineConfig, flags: dict[str, JsonValue], release: Release
) -> Iterator[_Difference]:
    for name, value in flags.items():
        if release.build_flag(name).group != "plugins":
            continue
        built = config.plugin(name)
        if not _same(built, value):
            yield _Difference(name, built, value, _FIELDS.get(name, "engine.tensorrt"))


_FIELDS = {
    "use_paged_context_fmha": "engine.kv_cache.reuse, engine.batching.chunked_prefill",
    "tokens_per_block": "engine.kv_cache.tokens_per_block",
    "use_fp8_context_fmha": "engine.tensorrt.fp8_context_attention",
    "gemm_plugin": "engine.tensorrt.gemm_plugin",
    "reduce_fusion": "engine.tensorrt.reduce_fusion",
    "multiple_profiles": "engine.tensorrt.multiple_profiles",
    "lora_plugin": "engine.lora",
}


def _same(built: Any, value: JsonValue) -> bool:
    """Whether ``plugin_config`` says what the flag asked; ``auto`` may have become a type."""
    if value == "disable":
        return built in (None, False, "disable")
    if value == "enable":
        return built is True
    return built in _TYPES if value == "auto" else bool(built == value)


def _missing_files(path: Path, config: EngineConfig) -> Iterator[str]:
    for rank in range(config.world_size):
        file = path / f"rank{rank}.engine"
        if not file.is_file() or file.stat().st_size == 0:
            yield f"{file.name} is missing or empty"
