"""A deployment as arguments of the LLM API, by one release's own names.

Names, types, choices and the spelling of values come from the release's table; this module
decides which fields of the deployment file count, and in which order they stand in model.yaml.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia.kv import kv_bytes_per_token
from toolkit.engine.nvidia.naming import (
    field_value,
    is_default,
    named,
    names,
    no_counterpart,
)
from toolkit.engine.nvidia.refusal import refusal
from toolkit.engine.pytorch.validation import argument_problems
from toolkit.quantize.check import ResolvedQuantization
from toolkit.releases import Release
from toolkit.spec.models import Engine

_ALWAYS = (
    "engine.parallelism.tensor",
    "engine.parallelism.pipeline",
    "engine.limits.max_batch_size",
    "engine.limits.max_input_len",
    "engine.limits.max_seq_len",
    "engine.limits.max_num_tokens",
    "engine.batching.chunked_prefill",
    "engine.batching.stream_interval",
    "engine.batching.policy",
    "engine.kv_cache.reuse",
    "engine.kv_cache.partial_reuse",
    "engine.kv_cache.free_memory_fraction",
    "engine.kv_cache.tokens_per_block",
)
"""Written even where they are defaults, because ours are not always upstream's."""

_WHERE_SET = (
    "engine.parallelism.expert",
    "engine.parallelism.attention_data_parallel",
    "engine.dtype",
    "engine.batching.chunking",
    "engine.guided_decoding",
    "engine.kv_cache.host_offload",
    "engine.pytorch.overlap_scheduler",
    "engine.pytorch.attention_backend",
    "engine.pytorch.moe_backend",
    "engine.pytorch.torch_compile",
    "engine.pytorch.autotuner",
)
_STATISTICS: dict[str, JsonValue] = {"enable_iter_perf_stats": True}
"""What the model's metrics are read from; written where the release has it."""


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """Directories as the server sees them.

    Attributes:
        model: The unified checkpoint.
        tokenizer: None: the checkpoint's own.
        draft: The draft model, or the head, of speculative decoding.
        adapters: Directories of the LoRA adapters by name.
    """

    model: str = "model"
    tokenizer: str | None = None
    draft: str = "draft"
    adapters: Mapping[str, str] = field(default_factory=dict)


def llm_arguments(
    engine: Engine,
    resolved: ResolvedQuantization,
    arch: Architecture,
    release: Release,
    *,
    paths: ModelPaths,
) -> dict[str, JsonValue]:
    """The arguments, nested and in order, as model.yaml holds them.

    Raises:
        UnsupportedError: the release has no counterpart of a field, or does not take its value.
    """
    arguments: dict[str, JsonValue] = {"model": paths.model}
    if paths.tokenizer is not None:
        arguments["tokenizer"] = paths.tokenizer
    sources = {}
    for source, path, value in _all(engine, resolved, arch, release, paths):
        _put(arguments, path, value)
        sources[path] = source
    for problem in argument_problems(arguments, release):
        where = sources.get(problem.partition(" ")[0], "engine")
        raise refusal(where, f"{release.title}: {problem}", "choose another value, or remove it")
    return arguments


def _all(
    engine: Engine,
    resolved: ResolvedQuantization,
    arch: Architecture,
    release: Release,
    paths: ModelPaths,
) -> Iterator[tuple[str, str, JsonValue]]:
    """Field of the deployment file, path in the arguments, value."""
    for name in _ALWAYS:
        yield from _plain(engine, name, release)
    for name in _WHERE_SET:
        if not is_default(engine, name):
            yield from _plain(engine, name, release)
    yield from _queue(engine, release)
    yield from _cache(engine, resolved, arch, release)
    yield from _graphs(engine, release)
    yield from _lora(engine, release, paths)
    yield from _speculation(engine, release, paths)
    for path, value in _STATISTICS.items():
        if release.llm_args.has(path):
            yield "engine", path, value


def _plain(engine: Engine, name: str, release: Release) -> Iterator[tuple[str, str, JsonValue]]:
    if not names(release, name, "llm_args") and is_default(engine, name):
        return  # what the release fixes, and fixes as we would
    value = field_value(engine, name)
    for path, mapped in named(release, name, value, "llm_args"):
        yield name, path, mapped


def _queue(engine: Engine, release: Release) -> Iterator[tuple[str, str, JsonValue]]:
    name, delay = "engine.batching.queue_delay", engine.batching.queue_delay
    if delay:
        for path, _ in named(release, name, delay, "llm_args"):
            yield name, path, delay * 1000


def _cache(
    engine: Engine, resolved: ResolvedQuantization, arch: Architecture, release: Release
) -> Iterator[tuple[str, str, JsonValue]]:
    name = "quantization.kv_cache"
    for path, value in named(release, name, resolved.kv_cache.name, "llm_args"):
        yield name, path, value
    name, size = "engine.kv_cache.size", engine.kv_cache.size
    if size is None:
        return
    for path, _ in named(release, name, size, "llm_args"):
        counts_tokens = path.endswith("tokens")
        yield name, path, _tokens(size, engine, resolved, arch) if counts_tokens else size


def _tokens(size: int, engine: Engine, resolved: ResolvedQuantization, arch: Architecture) -> int:
    """Whole blocks of tokens that ``size`` bytes of one GPU hold."""
    each = kv_bytes_per_token(arch, resolved.kv_cache, engine.parallelism)
    block = engine.kv_cache.tokens_per_block
    tokens = int(size / each) // block * block
    if tokens < engine.limits.max_seq_len:
        raise refusal(
            "engine.kv_cache.size",
            f"it holds {tokens} tokens, less than one request of max_seq_len "
            f"({engine.limits.max_seq_len})",
            f"raise it to {math.ceil(engine.limits.max_seq_len * each / 2**20)}MiB or more",
        )
    return tokens


def _graphs(engine: Engine, release: Release) -> Iterator[tuple[str, str, JsonValue]]:
    graphs = engine.cuda_graphs
    name = "engine.cuda_graphs.enabled"
    enabled = graphs.enabled is not False
    for path, value in named(release, name, enabled, "llm_args"):
        yield name, path, value
        if not enabled:
            return
        if graphs.batch_sizes is None:
            # Beside the size limit the series is the release's own.
            yield (
                "engine.limits.max_batch_size",
                f"{path}.max_batch_size",
                (engine.limits.max_batch_size),
            )
    yield from _plain(engine, "engine.cuda_graphs.padding", release)
    if graphs.batch_sizes is not None:
        name = "engine.cuda_graphs.batch_sizes"
        sizes: list[JsonValue] = []
        sizes += sorted(set(graphs.batch_sizes))
        for path, value in named(release, name, sizes, "llm_args"):
            yield name, path, value


def _lora(
    engine: Engine, release: Release, paths: ModelPaths
) -> Iterator[tuple[str, str, JsonValue]]:
    lora = engine.lora
    if lora is None:
        return
    name = "engine.lora.adapters"
    directories: JsonValue = [paths.adapters.get(adapter, adapter) for adapter in lora.adapters]
    for path in names(release, name, "llm_args") or (None,):
        if path is None:
            raise no_counterpart(release, name)
        # A name that only switches adapters on stands beside the one that holds them.
        switch = release.llm_args.field(path).kind == "bool"
        yield name, path, True if switch else directories
    for name in ("max_rank", "target_modules", "max_on_gpu", "max_on_host"):
        value = getattr(lora, name)
        if value is None:
            continue
        plain: JsonValue = list(value) if isinstance(value, tuple) else value
        for path, mapped in named(release, f"engine.lora.{name}", plain, "llm_args"):
            yield f"engine.lora.{name}", path, mapped


def _speculation(
    engine: Engine, release: Release, paths: ModelPaths
) -> Iterator[tuple[str, str, JsonValue]]:
    chosen = engine.speculation
    if chosen is None:
        return
    method = release.speculation(chosen.method, "pytorch")
    assert method.config_class is not None, "every method of the runtime has one"
    tag = release.llm_args.config_class(method.config_class).tag
    assert tag is not None, "every class of a method has one"
    section = names(release, "engine.speculation", "llm_args")[0]
    yield "engine.speculation.method", f"{section}.{tag[0]}", method.decoding_type
    for ours in type(chosen).model_fields:
        where, value = f"engine.speculation.{ours}", getattr(chosen, ours)
        if ours in ("draft", "source"):
            value = paths.draft
        if ours == "method" or value is None:
            continue
        if ours not in method.terms:
            raise no_counterpart(release, where)
        yield where, f"{section}.{method.terms[ours]}", value
    for path, text in method.requires.items():
        yield "engine.speculation.method", path, json.loads(text)


def _put(arguments: dict[str, JsonValue], path: str, value: JsonValue) -> None:
    *sections, last = path.split(".")
    below = arguments
    for section in sections:
        inner = below.setdefault(section, {})
        assert isinstance(inner, dict), f"{section} holds a value, not fields"
        below = inner
    below[last] = value
