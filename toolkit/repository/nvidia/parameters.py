"""Parameters of NVIDIA's C++ backend for a deployment.

Names, types and choices are the release table's; which field of the deployment file a parameter
follows stands in the table too. A parameter that is left out takes the backend's default; none is
ever written without a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from pydantic import JsonValue

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia.kv import kv_bytes_per_token
from toolkit.engine.nvidia.naming import field_value, named
from toolkit.engine.nvidia.refusal import refusal
from toolkit.quantize.check import ResolvedQuantization
from toolkit.releases import Release
from toolkit.repository.nvidia.devices import gpu_device_ids
from toolkit.spec.models import Deployment, DraftModel, Eagle, Lookahead, Medusa

Role = Literal["target", "draft"]

_STATISTICS = {
    "cancellation_check_period_ms": "100",
    "stats_check_period_ms": "100",
    "iter_stats_max_iterations": "100",
    # return_perf_metrics answers from these.
    "request_stats_max_iterations": "10",
}
_ALWAYS = (
    "engine.batching.policy",
    "engine.batching.chunked_prefill",
    "engine.kv_cache.reuse",
)
_WITHOUT_DRAFT_SHARE = 0.8
"""The target's share of the KV cache where the draft's size is not known."""


@dataclass(frozen=True, slots=True)
class _Pool:
    """One engine's part: of the memory, the target's likewise, and tokens if they are bounded."""

    share: float
    target_share: float
    tokens: int | None


@dataclass(frozen=True, slots=True)
class KvDivision:
    """How a target and its draft model, both on the same GPUs, divide the KV memory.

    Attributes:
        draft_share: The draft's share of the bytes of one token, if it is known.
        tokens: What each of them holds, if it is known. It bounds both, in whatever order they
            load; without it each takes its share of what it finds free, and the second one gets
            less than its share.
    """

    draft_share: float | None = None
    tokens: int | None = None

    def pool(self, role: Role) -> _Pool:
        """What the engine in ``role`` gets."""
        target = _WITHOUT_DRAFT_SHARE if self.draft_share is None else 1 - self.draft_share
        return _Pool(target if role == "target" else 1 - target, target, self.tokens)


UNKNOWN = KvDivision()


@dataclass(frozen=True, slots=True)
class EnginePaths:
    """Directories as the server sees them."""

    engine: PurePath
    adapters: PurePath
    tokenizer_info: PurePath


def engine_parameters(
    deployment: Deployment,
    arch: Architecture,
    release: Release,
    resolved: ResolvedQuantization,
    paths: EnginePaths,
    *,
    role: Role = "target",
    division: KvDivision = UNKNOWN,
) -> tuple[tuple[str, str], ...]:
    """Name and text of every parameter, by name.

    Args:
        deployment: A deployment that :func:`toolkit.engine.tensorrt.check` accepts.
        arch: The target model.
        release: The release that serves it.
        resolved: The target's formats.
        paths: Where the engine's files are.
        role: The target, or the draft model of draft-model speculation.
        division: Of the KV memory between target and draft model.

    Raises:
        UnsupportedError: the release has no parameter for what a field asks.
    """
    values = _constants(release, paths)
    for field in _ALWAYS:
        values |= _named(deployment, field, release)
    drafting = isinstance(deployment.engine.speculation, DraftModel)
    pool = division.pool(role) if drafting else _Pool(1.0, 1.0, None)
    values |= dict(_cache(deployment, arch, release, resolved, pool))
    if arch.sliding_window is not None:
        values["max_attention_window_size"] = str(arch.sliding_window)
    values |= _texts(named(release, "serving.gpus", gpu_device_ids(deployment), _PART))
    values |= dict(_graphs(deployment, release))
    if role == "target":
        values |= dict(_speculation(deployment, release))
        values |= dict(_lora(deployment, release, paths))
        values |= dict(_guides(deployment, release, paths))
    model = release.triton_model("tensorrt_llm")
    for name, text in values.items():
        wrong = model.parameter(name).problem(text)
        if wrong:
            raise refusal("engine", f"{release.title}: parameter {name} {wrong}", "remove it")
    return tuple(sorted(values.items()))


def _constants(release: Release, paths: EnginePaths) -> dict[str, str]:
    """What no field of the deployment file changes."""
    model = release.triton_model("tensorrt_llm")
    fixed = {each.name: each.fixed for each in model.parameters if each.fixed is not None}
    return {
        **fixed,
        **_STATISTICS,
        "gpt_model_type": "inflight_fused_batching",
        "gpt_model_path": str(paths.engine),
        "max_beam_width": "1",
        "exclude_input_in_output": "true",
        # Sums of logarithms as they are, not divided by the length.
        "normalize_log_probs": "false",
    }


_PART: Literal["triton_parameters"] = "triton_parameters"


def _named(deployment: Deployment, field: str, release: Release) -> dict[str, str]:
    return _texts(named(release, field, field_value(deployment.engine, field), _PART))


def _texts(pairs: Iterator[tuple[str, JsonValue]]) -> dict[str, str]:
    return {name: text_of(value) for name, value in pairs}


def text_of(value: JsonValue) -> str:
    """A value as the backend reads it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cache(
    deployment: Deployment,
    arch: Architecture,
    release: Release,
    resolved: ResolvedQuantization,
    pool: _Pool,
) -> Iterator[tuple[str, str]]:
    cache = deployment.engine.kv_cache
    bounded = pool.tokens is not None
    fraction = cache.free_memory_fraction * (1.0 if bounded else pool.share)
    pairs: dict[str, JsonValue] = {"engine.kv_cache.free_memory_fraction": round(fraction, 4)}
    tokens = pool.tokens if bounded else _tokens(deployment, arch, resolved, pool.target_share)
    if tokens is not None:
        pairs["engine.kv_cache.size"] = tokens
    if cache.host_offload:
        pairs["engine.kv_cache.host_offload"] = int(cache.host_offload * pool.share)
    for field, value in pairs.items():
        yield from _texts(named(release, field, value, _PART)).items()


def _tokens(
    deployment: Deployment, arch: Architecture, resolved: ResolvedQuantization, share: float
) -> int | None:
    """Whole blocks of tokens that the target's ``share`` of ``kv_cache.size`` holds.

    The backend does not start with a pool that holds less than one whole request.
    """
    engine = deployment.engine
    size = engine.kv_cache.size
    if size is None:
        return None
    each = kv_bytes_per_token(arch, resolved.kv_cache, engine.parallelism)
    block = engine.kv_cache.tokens_per_block
    tokens = int(size * share / each) // block * block
    if tokens < engine.limits.max_seq_len:
        needed = int(engine.limits.max_seq_len * each / share / 2**20) + 1
        raise refusal(
            "engine.kv_cache.size",
            f"it holds {tokens} tokens, less than one request of max_seq_len "
            f"({engine.limits.max_seq_len})",
            f"raise it to {needed}MiB or more",
        )
    return tokens


def _graphs(deployment: Deployment, release: Release) -> Iterator[tuple[str, str]]:
    if deployment.engine.cuda_graphs.enabled:
        yield from _named(deployment, "engine.cuda_graphs.enabled", release).items()
        yield from _named(deployment, "engine.cuda_graphs.cache_size", release).items()


def _speculation(deployment: Deployment, release: Release) -> Iterator[tuple[str, str]]:
    chosen = deployment.engine.speculation
    if chosen is None:
        return
    method = release.speculation(chosen.method, "tensorrt")
    if method.decoding_mode is not None:
        yield "decoding_mode", method.decoding_mode
    if isinstance(chosen, Eagle | Medusa) and chosen.choices is not None:
        branches = ",".join(f"{{{branch}}}" for branch in chosen.choices)
        yield method.terms["choices"], branches
    if isinstance(chosen, Lookahead):
        for ours, name in method.terms.items():
            yield name, str(getattr(chosen, ours))


def _lora(
    deployment: Deployment, release: Release, paths: EnginePaths
) -> Iterator[tuple[str, str]]:
    if deployment.engine.lora is not None:
        yield from _named(deployment, "engine.lora.max_rank", release).items()
        yield "lora_prefetch_dir", str(paths.adapters)


def _guides(
    deployment: Deployment, release: Release, paths: EnginePaths
) -> Iterator[tuple[str, str]]:
    if deployment.engine.guided_decoding is not None:
        yield from _named(deployment, "engine.guided_decoding", release).items()
        yield "xgrammar_tokenizer_info_path", str(paths.tokenizer_info)
