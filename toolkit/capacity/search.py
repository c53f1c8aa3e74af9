"""The deployment that keeps latency targets under a load at least cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from toolkit.capacity.efficiency import Efficiency
from toolkit.capacity.memory import fit
from toolkit.capacity.mixture import eagle_head
from toolkit.capacity.plan import MemoryPlan
from toolkit.capacity.prices import Cost, Prices, cost
from toolkit.capacity.roofline import Work
from toolkit.capacity.serving import Estimate, Replica, at_rate, best_within
from toolkit.capacity.traffic import Traffic
from toolkit.capacity.work import gpu_device, gpu_work
from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia.target import NvidiaRuntime
from toolkit.errors import ToolkitError
from toolkit.quantize.check import ResolvedQuantization, check
from toolkit.quantize.formats import KV_FORMATS, WEIGHT_FORMATS, KvFormatInfo, WeightFormatInfo
from toolkit.spec.gpus import Gpu
from toolkit.spec.models import Eagle, Eagle3, Engine, Parallelism, Quantization

_WAYS = (1, 2, 4, 8)
_MOST_REQUESTS = 512
"""Requests that a replica may run at once; the logits of so many are reserved."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of the deployment: requests a second at the peak, and mean latencies."""

    traffic: Traffic
    rate: float
    ttft_s: float = math.inf
    tpot_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Option:
    """A deployment that does it.

    Attributes:
        estimate: One replica at its share of the peak.
        memory: The fullest GPU of a replica.
        most: One replica at the greatest load within the targets.
        replica: For estimates at other loads.
    """

    gpu: Gpu
    tensor: int
    replicas: int
    weights: str
    kv_cache: str
    estimate: Estimate
    most: Estimate
    memory: MemoryPlan
    cost: Cost
    replica: Replica

    @property
    def gpus(self) -> int:
        """Of all replicas."""
        return self.tensor * self.replicas


@dataclass(frozen=True, slots=True)
class Question:
    """What may be varied and what may not.

    Attributes:
        engine: Everything of the engine that is kept; limits and ``tensor`` are not.
        quantization: Its ``exclude`` is kept; formats are varied unless ``keep_formats``.
        factors: By name of the GPU; the empty name for all others.
    """

    arch: Architecture
    engine: Engine
    quantization: Quantization
    runtime: NvidiaRuntime
    factors: dict[str, Efficiency]
    keep_formats: bool = False
    draft: Architecture | None = None

    def efficiency(self, gpu: Gpu) -> Efficiency:
        """The calibrated factors of this GPU, or the general ones."""
        return self.factors.get(gpu.name, self.factors[""])


def search(question: Question, goal: Goal, gpus: Iterable[Gpu], prices: Prices) -> list[Option]:
    """Every deployment that keeps the targets, cheapest first; of equals the fewest GPUs.

    GPUs without a price, and formats that the GPU or the runtime lacks, are left out.
    """
    found = [
        option
        for gpu in gpus
        if prices.of(gpu.name) is not None
        for option in _on(question, goal, gpu, prices)
    ]
    return sorted(found, key=lambda o: (o.cost.hour, o.gpus, o.estimate.tpot_s))


def cheapest_of_each(
    options: Iterable[Option], accept: Callable[[Option], bool] = lambda _: True
) -> list[Option]:
    """The first option of each GPU that is accepted, in the order given."""
    first: dict[str, Option] = {}
    for option in options:
        if option.gpu.name not in first and accept(option):
            first[option.gpu.name] = option
    return list(first.values())


def _on(question: Question, goal: Goal, gpu: Gpu, prices: Prices) -> Iterator[Option]:
    for resolved in _formats(question, gpu):
        for tensor in _WAYS:
            if question.arch.num_heads % tensor:
                continue
            option = _option(question, goal, gpu, resolved, tensor, prices)
            if option is not None:
                yield option


def _option(
    question: Question,
    goal: Goal,
    gpu: Gpu,
    resolved: ResolvedQuantization,
    tensor: int,
    prices: Prices,
) -> Option | None:
    engine = _engine(question.engine, goal.traffic, tensor)
    try:
        memory = fit(
            engine, resolved, question.arch, gpu, runtime=question.runtime, draft=question.draft
        )
    except ToolkitError:
        return None
    replica = make_replica(
        question.arch,
        resolved,
        gpu,
        engine,
        memory,
        question.efficiency(gpu),
        draft=question.draft,
    )
    most = best_within(replica, goal.traffic, ttft_s=goal.ttft_s, tpot_s=goal.tpot_s)
    if most is None:
        return None
    replicas = max(1, math.ceil(goal.rate / most.rate - 1e-9))
    share = at_rate(replica, goal.traffic, goal.rate / replicas) or most
    paid = cost(prices, gpu.name, replicas * tensor, goal.traffic, goal.rate)
    names = resolved.weights.name, resolved.kv_cache.name
    return Option(gpu, tensor, replicas, *names, share, most, memory, paid, replica)


def make_replica(
    arch: Architecture,
    resolved: ResolvedQuantization,
    gpu: Gpu,
    engine: Engine,
    memory: MemoryPlan,
    factors: Efficiency,
    *,
    draft: Architecture | None = None,
) -> Replica:
    """One replica of the deployment, for estimates.

    Raises:
        UnsupportedError: a model type whose layers are not known.
    """
    tensor, pipeline = engine.parallelism.tensor, engine.parallelism.pipeline
    drafted = None
    if draft is None and isinstance(engine.speculation, Eagle | Eagle3):
        draft = eagle_head(arch)  # and the target's own lm_head
    if draft is not None:
        drafted = _work(draft, check(draft, Quantization()), tensor, pipeline)
    return Replica(
        work=_work(arch, resolved, tensor, pipeline),
        device=gpu_device(gpu, resolved),
        factors=factors,
        kv_tokens=memory.kv_tokens,
        max_batch=engine.limits.max_batch_size,
        step_tokens=engine.limits.max_num_tokens,
        draft=drafted,
        most_drafting=most_drafting(engine),
    )


def most_drafting(engine: Engine) -> int:
    """Running requests above which drafting pauses; 0 without a limit."""
    return getattr(engine.speculation, "max_concurrency", None) or 0


def _engine(engine: Engine, traffic: Traffic, tensor: int) -> Engine:
    length = math.ceil(traffic.prompt_tokens + traffic.output_tokens)
    limits = engine.limits.model_copy(
        update={"max_seq_len": length, "max_batch_size": _MOST_REQUESTS}
    )
    parallelism = engine.parallelism.model_copy(update={"tensor": tensor, "pipeline": 1})
    return engine.model_copy(update={"limits": limits, "parallelism": parallelism})


def _formats(question: Question, gpu: Gpu) -> Iterator[ResolvedQuantization]:
    asked = question.quantization
    if question.keep_formats or question.arch.quantization is not None:
        yield check(question.arch, asked, runtime=question.runtime)
        return
    for weights in WEIGHT_FORMATS.values():
        for kv_cache in KV_FORMATS.values():
            if not (_runs(weights, gpu, question) and _runs(kv_cache, gpu, question)):
                continue
            if kv_cache.name == "nvfp4" or (weights.name == "nvfp4" and gpu.weights != "nvfp4"):
                continue  # kernels that fail on desktop cards; a cache that few models bear
            update = {"weights": weights.name, "kv_cache": kv_cache.name, "block_size": None}
            try:
                yield check(
                    question.arch, asked.model_copy(update=update), runtime=question.runtime
                )
            except ToolkitError:
                continue


def _runs(info: WeightFormatInfo | KvFormatInfo, gpu: Gpu, question: Question) -> bool:
    major, minor = gpu.compute_capability
    capable = major + minor / 10 >= info.min_capability
    return capable and question.runtime in info.runtimes


@lru_cache(maxsize=256)
def _work(arch: Architecture, resolved: ResolvedQuantization, tensor: int, pipeline: int) -> Work:
    return gpu_work(arch, resolved, Parallelism(tensor=tensor, pipeline=pipeline))
