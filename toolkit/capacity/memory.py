"""Whether a deployment fits into a GPU, and with how much KV cache.

Weights and KV cache are computed from the model's shapes. Activations and the runtime's own memory
cannot be, so they are estimates; the largest batches that TensorRT-LLM really admitted, 72 runs
published by ai-dynamo/aiconfigurator (tests/integration/test_trtllm_kv_cache_capacity.py at
095f58a51c4c: Llama-3.1-8B in 16 bit and Qwen3-32B in FP8, tensor 1, 2 and 4, one H100 and one
GB300), are met within 3 %. All of them are of the pytorch runtime; the tensorrt runtime, other
GPUs and 8 GPUs are extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from toolkit.capacity.mixture import mixture_bytes, mixture_of
from toolkit.capacity.plan import Line, MemoryPlan
from toolkit.capacity.weights import WeightBytes, scaled_bytes, weight_bytes
from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia.kv import kv_bytes_per_token, layers_per_stage
from toolkit.engine.nvidia.target import NvidiaRuntime
from toolkit.errors import UnsupportedError
from toolkit.quantize.check import ResolvedQuantization, check
from toolkit.quantize.formats import KV_FORMATS, WEIGHT_FORMATS, KvFormatInfo, WeightFormatInfo
from toolkit.quantize.modules import linear_widths
from toolkit.spec.gpus import Gpu
from toolkit.spec.models import DraftModel, Eagle, Eagle3, Engine, Medusa, Parallelism, Quantization

_GIB = 2**30
_TOKEN_BYTES = {1: 22.0, 2: 13.0, 4: 10.0}
"""Bytes of activations for one token of a step and one channel of attention, by tensor: the
coefficients of aiconfigurator's TensorRT-LLM backend (11, 6.5 and 5 elements of 16 bit)."""

_LEAST_ACTIVATIONS = 70 * 2**20
_RUNTIME_GIB = {1: 3.4, 2: 3.75, 4: 4.55, 8: 5.4}
_RUNTIME_SHARE = 0.009
"""Fitted to the runs above: CUDA context, libraries, communication buffers, CUDA graphs and
fragments; 8 GPUs are extrapolated from 1, 2 and 4."""

_WAYS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class _Model:
    """One model on the GPUs: the target or a draft."""

    arch: Architecture
    resolved: ResolvedQuantization
    stored: int | None = None


def fit(
    engine: Engine,
    resolved: ResolvedQuantization,
    arch: Architecture,
    gpu: Gpu,
    *,
    runtime: NvidiaRuntime,
    draft: Architecture | None = None,
    checkpoint_bytes: int | None = None,
) -> MemoryPlan:
    """How the deployment uses the fullest GPU of one replica.

    Args:
        engine: Limits, parallelism, KV cache, speculation, adapters.
        resolved: Formats of the target's weights and KV cache.
        arch: The target.
        gpu: The model of GPU.
        runtime: Runtime that will serve it.
        draft: The draft model of draft-model speculation, kept in its own format.
        checkpoint_bytes: Size of the target's checkpoint in 16 bit, for a model type whose layers
            are not known.

    Raises:
        UnsupportedError: it does not fit; the details hold the sum, the hint what would fit.
    """
    target = _Model(arch, resolved, checkpoint_bytes)
    plan = _plan(engine, target, gpu, runtime, draft)
    if plan.fits:
        return plan
    raise _refusal(plan, engine, target, runtime, draft)


def _plan(
    engine: Engine, target: _Model, gpu: Gpu, runtime: NvidiaRuntime, draft: Architecture | None
) -> MemoryPlan:
    element = 4 if engine.dtype == "float32" else 2
    fixed = tuple(_fixed(engine, target, gpu, runtime, draft, element))
    cache = engine.kv_cache
    free = gpu.memory - sum(line.bytes for line in fixed)
    pool = int(free * cache.free_memory_fraction)
    if cache.size is not None:
        pool = min(cache.size, free)
    kv_cache, ways = target.resolved.kv_cache, engine.parallelism
    per_token = kv_bytes_per_token(target.arch, kv_cache, ways, element=element)
    if draft is not None:
        # A draft engine keeps its own cache in 16 bit; the LLM API has one for both.
        own = KV_FORMATS["none"] if runtime == "tensorrt" else kv_cache
        per_token += kv_bytes_per_token(draft, own, ways, element=element)
    drafts = engine.speculation.max_draft_len if engine.speculation else 0
    block = cache.tokens_per_block
    plan = MemoryPlan(
        gpu=gpu,
        fixed=fixed,
        pool=pool,
        kv_bytes_per_token=per_token,
        sequence_tokens=math.ceil((engine.limits.max_seq_len + drafts) / block) * block,
        tokens_per_block=block,
        max_batch_size=engine.limits.max_batch_size,
    )
    return replace(plan, notes=tuple(_notes(plan, engine)))


def _fixed(
    engine: Engine,
    target: _Model,
    gpu: Gpu,
    runtime: NvidiaRuntime,
    draft: Architecture | None,
    element: int,
) -> Iterator[Line]:
    weights = _weights(target, engine.parallelism, runtime, element)
    form = target.resolved.weights.name
    yield Line("weights", weights.layers, f"shapes x {form}, layers of one GPU")
    if weights.tables:
        yield Line("embeddings and lm_head", weights.tables, "tables of one GPU")
    yield from _speculation(engine, target.arch, draft, runtime, element)
    if engine.lora:
        yield _adapters(engine, target.arch)
    yield _activations(engine, target.arch)
    yield _logits(engine, target.arch)
    yield _runtime_reserve(engine.parallelism, gpu)


def _weights(
    model: _Model, parallelism: Parallelism, runtime: NvidiaRuntime, element: int
) -> WeightBytes:
    if (mixture := mixture_of(model.arch)) is not None:
        held, expert = mixture_bytes(
            mixture,
            model.resolved,
            parallelism,
            element=element,
            shared_tables=runtime == "pytorch",
        )
        return WeightBytes(held.layers + int(mixture.experts * expert), held.tables)
    if model.arch.family == "other" and model.stored is not None:
        return scaled_bytes(model.stored, model.resolved.weights, parallelism)
    # ModelOpt writes a tied head as a table of its own into a TensorRT-LLM checkpoint.
    return weight_bytes(
        model.arch,
        model.resolved,
        parallelism,
        element=element,
        shared_tables=runtime == "pytorch",
    )


def _speculation(
    engine: Engine,
    arch: Architecture,
    draft: Architecture | None,
    runtime: NvidiaRuntime,
    element: int,
) -> Iterator[Line]:
    chosen, hidden = engine.speculation, arch.hidden_size
    if isinstance(chosen, DraftModel) and draft is not None:
        plain = _Model(draft, check(draft, Quantization()))
        size = _weights(plain, engine.parallelism, runtime, element).total
        yield Line("draft weights", size, "shapes x none, like the target")
        size = _activation_bytes(engine, draft)
        yield Line("draft activations", size, "as the target's")
    elif isinstance(chosen, Eagle | Eagle3):
        layer = sum(i * o for i, o in linear_widths(replace(arch, num_layers=1)).values())
        size = (layer + 3 * hidden * hidden) * element
        yield Line("EAGLE head", size, "one layer of the target, its inputs and lm_head")
    elif isinstance(chosen, Medusa):
        size = chosen.num_heads * (hidden * hidden + hidden * arch.vocab_size) * element
        yield Line("Medusa heads", size, "a residual layer and an lm_head each")


def _adapters(engine: Engine, arch: Architecture) -> Line:
    lora = engine.lora
    assert lora is not None
    held = min(lora.max_on_gpu or len(lora.adapters), len(lora.adapters))
    widest = max(i + o for i, o in linear_widths(replace(arch, num_layers=1)).values())
    each = (
        lora.max_rank
        * widest
        * len(lora.target_modules)
        * layers_per_stage(arch, engine.parallelism)
    )
    how = f"{held} x rank {lora.max_rank} x {len(lora.target_modules)} modules, at the widest"
    return Line("LoRA adapters", held * each * 2, how)


def _activations(engine: Engine, arch: Architecture) -> Line:
    size = _activation_bytes(engine, arch)
    return Line("activations", size, f"estimate for {_step_tokens(engine)} tokens a step")


def _activation_bytes(engine: Engine, arch: Architecture) -> int:
    ways = 1 if engine.parallelism.attention_data_parallel else engine.parallelism.tensor
    each = _TOKEN_BYTES[max(way for way in _TOKEN_BYTES if way <= ways)]
    size = _step_tokens(engine) * arch.num_heads * arch.head_dim * each
    return max(int(size), _LEAST_ACTIVATIONS)


def _step_tokens(engine: Engine) -> int:
    # trtllm-build raises max_num_tokens to a whole step of drafts (builder.py of 1.2).
    drafts = engine.speculation.max_draft_len if engine.speculation else 0
    return max(engine.limits.max_num_tokens, engine.limits.max_batch_size * (drafts + 1))


def _logits(engine: Engine, arch: Architecture) -> Line:
    drafts = engine.speculation.max_draft_len if engine.speculation else 0
    rows = engine.limits.max_batch_size * (drafts + 1)
    if engine.tensorrt.gather_context_logits:
        rows = max(rows, _step_tokens(engine))
    return Line("logits", rows * arch.vocab_size * 4, f"{rows} rows of the vocabulary in float32")


def _runtime_reserve(parallelism: Parallelism, gpu: Gpu) -> Line:
    ways = max(way for way in _RUNTIME_GIB if way <= parallelism.world_size)
    size = int(_RUNTIME_GIB[ways] * _GIB + _RUNTIME_SHARE * gpu.memory)
    return Line("runtime", size, "estimate: CUDA, NCCL, libraries, CUDA graphs")


def _notes(plan: MemoryPlan, engine: Engine) -> Iterator[str]:
    if 1 <= plan.full_requests < engine.limits.max_batch_size:
        yield (
            f"{plan.full_requests} requests of max_seq_len fill the KV cache; of the "
            f"{engine.limits.max_batch_size} of max_batch_size the others are shorter or wait"
        )
    if engine.kv_cache.size is not None and plan.pool < engine.kv_cache.size:
        yield f"engine.kv_cache.size is cut to the {plan.pool / _GIB:.1f} GiB that are free"


def _refusal(
    plan: MemoryPlan,
    engine: Engine,
    target: _Model,
    runtime: NvidiaRuntime,
    draft: Architecture | None,
) -> UnsupportedError:
    needed = plan.used + plan.sequence_tokens * plan.kv_bytes_per_token
    what = f"{needed / _GIB:.1f} GiB are needed on each {plan.gpu.name}, which has " + (
        f"{plan.gpu.memory / _GIB:.1f}"
    )
    where = "engine.limits.max_seq_len" if plan.kv_tokens else "model.source"
    if needed <= plan.gpu.memory:
        what = (
            f"the KV cache holds {plan.kv_tokens} tokens, but one request of max_seq_len takes "
            f"{plan.sequence_tokens}"
        )
        where = "engine.kv_cache" if engine.kv_cache.size else where
    ways = list(_ways_out(plan, engine, target, runtime, draft))
    hint = f"what would fit: {'; '.join(ways)}" if ways else "use a larger GPU or a smaller model"
    return UnsupportedError(what, where=where, hint=hint, details=plan.lines())


def _ways_out(
    plan: MemoryPlan,
    engine: Engine,
    target: _Model,
    runtime: NvidiaRuntime,
    draft: Architecture | None,
) -> Iterator[str]:
    drafts = engine.speculation.max_draft_len if engine.speculation else 0
    length = plan.kv_tokens - drafts
    if length >= 2:
        yield f"max_seq_len up to {length}"
    for name in _smaller_formats(target, plan.gpu, runtime):
        smaller = replace(target.resolved, weights=WEIGHT_FORMATS[name], modules=_modules(target))
        if _plan(engine, replace(target, resolved=smaller), plan.gpu, runtime, draft).fits:
            yield f"quantization.weights: {name}"
            break
    if target.resolved.kv_cache.name == "none" and _runs(KV_FORMATS["fp8"], plan.gpu, runtime):
        smaller = replace(target.resolved, kv_cache=KV_FORMATS["fp8"])
        if _plan(engine, replace(target, resolved=smaller), plan.gpu, runtime, draft).fits:
            yield "quantization.kv_cache: fp8"
    for tensor in _WAYS:
        if tensor <= engine.parallelism.tensor or target.arch.num_heads % tensor:
            continue
        wider = engine.parallelism.model_copy(update={"tensor": tensor})
        spread = engine.model_copy(update={"parallelism": wider})
        if _plan(spread, target, plan.gpu, runtime, draft).fits:
            yield f"engine.parallelism.tensor: {tensor}"
            break


def _smaller_formats(target: _Model, gpu: Gpu, runtime: NvidiaRuntime) -> Iterator[str]:
    for name in ("fp8", "int4_awq"):
        info = WEIGHT_FORMATS[name]
        smaller = info.weight_bits < target.resolved.weights.weight_bits
        if smaller and target.arch.quantization is None and _runs(info, gpu, runtime):
            yield name


def _runs(info: WeightFormatInfo | KvFormatInfo, gpu: Gpu, runtime: NvidiaRuntime) -> bool:
    major, minor = gpu.compute_capability
    return runtime in info.runtimes and major + minor / 10 >= info.min_capability


def _modules(target: _Model) -> tuple[str, ...]:
    if target.resolved.modules or target.arch.family == "other":
        return target.resolved.modules
    return check(target.arch, Quantization(weights="fp8")).modules
