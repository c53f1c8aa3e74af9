"""What the ``tensorrt_llm`` model of an engine is told in its config.pbtxt.

Only what follows from the deployment's engine section; directories, devices and request handling
are the repository's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import JsonValue

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia.kv import kv_bytes_per_token
from toolkit.engine.nvidia.naming import field_value, is_default, named
from toolkit.engine.nvidia.refusal import refusal
from toolkit.engine.tensorrt.flags import IN_FLIGHT
from toolkit.quantize.check import ResolvedQuantization
from toolkit.releases import Release, TritonModel
from toolkit.spec.models import Engine, Medusa

_ALWAYS = (
    "engine.batching.policy",
    "engine.batching.chunked_prefill",
    "engine.kv_cache.reuse",
    "engine.kv_cache.free_memory_fraction",
)
_WHERE_SET = (
    "engine.kv_cache.host_offload",
    "engine.guided_decoding",
    "engine.cuda_graphs.enabled",
    "engine.cuda_graphs.cache_size",
)


def engine_parameters(
    engine: Engine,
    resolved: ResolvedQuantization,
    arch: Architecture,
    release: Release,
    *,
    engine_dir: str,
    role: Literal["target", "draft"] = "target",
    kv_tokens: int | None = None,
) -> dict[str, str]:
    """Parameters of the model by name, as text.

    Args:
        engine: A section that :func:`toolkit.engine.tensorrt.check` accepts.
        resolved: Formats of the model that the engine is of.
        arch: That model.
        release: The release that serves.
        engine_dir: The engine's directory as the server sees it.
        role: The target, or the draft model of draft-model speculation.
        kv_tokens: Tokens of KV cache; of two engines on one GPU each needs it given
            (:attr:`toolkit.capacity.MemoryPlan.kv_tokens`), or the first one loaded takes all.

    Raises:
        UnsupportedError: the release has no parameter for a field, or does not take its value.
    """
    model = release.triton_model("tensorrt_llm")
    values: dict[str, str] = {
        "gpt_model_type": model.parameter("gpt_model_type").choices[0],
        "gpt_model_path": engine_dir,
        "max_beam_width": str(IN_FLIGHT["max_beam_width"]),
    }
    for field, name, value in _all(engine, resolved, arch, release, role, kv_tokens):
        text = _text(value)
        wrong = model.parameter(name).problem(text)
        if wrong:
            raise refusal(field, f"{release.title}: {name} {wrong}", "choose another value")
        values[name] = text
    return values


def _all(
    engine: Engine,
    resolved: ResolvedQuantization,
    arch: Architecture,
    release: Release,
    role: Literal["target", "draft"],
    kv_tokens: int | None,
) -> Iterator[tuple[str, str, JsonValue]]:
    """Field of the deployment file, parameter, value."""
    for field in (*_ALWAYS, *(f for f in _WHERE_SET if not is_default(engine, f))):
        for name, value in named(release, field, field_value(engine, field), "triton_parameters"):
            yield field, name, value
    tokens = kv_tokens or _sized_tokens(engine, resolved, arch)
    if tokens is not None:
        field = "engine.kv_cache.size"
        for name, _ in named(release, field, tokens, "triton_parameters"):
            yield field, name, tokens
    if role == "draft":
        return
    if engine.lora is not None:
        field = "engine.lora.max_rank"
        for name, value in named(release, field, engine.lora.max_rank, "triton_parameters"):
            yield field, name, value
    yield from _speculation(engine, release)


def _sized_tokens(engine: Engine, resolved: ResolvedQuantization, arch: Architecture) -> int | None:
    size = engine.kv_cache.size
    if size is None:
        return None
    each = kv_bytes_per_token(arch, resolved.kv_cache, engine.parallelism)
    block = engine.kv_cache.tokens_per_block
    return int(size / each) // block * block


def _speculation(engine: Engine, release: Release) -> Iterator[tuple[str, str, JsonValue]]:
    chosen = engine.speculation
    if chosen is None:
        return
    method = release.speculation(chosen.method, "tensorrt")
    model = release.triton_model("tensorrt_llm")
    if method.decoding_mode is not None:
        yield "engine.speculation.method", "decoding_mode", method.decoding_mode
    for ours, name in method.terms.items():
        if not _has(model, name):
            continue  # a flag of the build
        value = getattr(chosen, ours)
        if isinstance(chosen, Medusa) and ours == "choices":
            value = _tree(chosen.choices)
        if value is not None:
            yield f"engine.speculation.{ours}", name, value


def _tree(branches: tuple[str, ...] | None) -> str | None:
    return ",".join(f"{{{branch}}}" for branch in branches) if branches else None


def _has(model: TritonModel, name: str) -> bool:
    return any(parameter.name == name for parameter in model.parameters)


def _text(value: JsonValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
