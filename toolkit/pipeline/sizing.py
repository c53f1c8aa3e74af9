"""How fast a deployment would be, and the one that carries a load at least cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolkit.bench.report import BenchReport
from toolkit.capacity.calibration import Calibration, calibrate
from toolkit.capacity.efficiency import CPU_ENGINE, TENSORRT_LLM, Efficiency
from toolkit.capacity.host import HostPlan, inference_bytes
from toolkit.capacity.plan import MemoryPlan
from toolkit.capacity.prices import Prices
from toolkit.capacity.roofline import Balance, Device
from toolkit.capacity.search import (
    Goal,
    Option,
    Question,
    cheapest_of_each,
    make_replica,
    most_drafting,
    search,
)
from toolkit.capacity.serving import (
    Estimate,
    Replica,
    decode_balance,
    frontier,
    prefill_balance,
    reuse_gain,
    speculation_gain,
    with_running,
)
from toolkit.capacity.traffic import Traffic
from toolkit.capacity.work import gpu_work, host_work
from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia import target_of
from toolkit.errors import SpecError, ToolkitError, UnsupportedError
from toolkit.pipeline.calibrating import CPU, Known, keep, key_of, observations
from toolkit.pipeline.planning import Plan, make_plan, settle
from toolkit.quantize.check import check
from toolkit.spec.gpus import GPUS, Gpu, find_gpu
from toolkit.spec.models import (
    Deployment,
    Eagle,
    Engine,
    Lookahead,
    Medusa,
    Parallelism,
    Quantization,
)

_LOADS = (1, 8, 32, 128)


@dataclass(frozen=True, slots=True)
class Speed:
    """Estimates of one replica under some numbers of requests, and what they rest on.

    Attributes:
        curve: The same at many loads, for a plot.
        drafting: How many times faster tokens come than without drafts, for each of
            ``estimates``; empty without an acceptance rate.
        reuse: How many times sooner a lone request's first token comes with the cache's hits.
        prefill: What a lone prompt moves and computes on each GPU.
        decode: The same of a step of each of ``estimates``.
        ways: GPUs that share each layer.
    """

    traffic: Traffic
    estimates: tuple[Estimate, ...]
    factors: Efficiency
    device: Device
    prefill: Balance
    decode: tuple[Balance, ...]
    curve: tuple[Estimate, ...] = ()
    drafting: tuple[float, ...] = ()
    reuse: float = 1.0
    ways: int = 1

    @property
    def source(self) -> str:
        """Where the factors come from."""
        return self.factors.source


def speed_of(
    plan: Plan,
    arch: Architecture,
    traffic: Traffic,
    known: Mapping[str, Known],
    *,
    draft: Architecture | None = None,
) -> Speed | None:
    """Times of the plan's replica at some loads up to what its cache and limits let in.

    None where nothing is known to compute them from: no GPU, a CPU that was not calibrated, a
    model type whose layers are not known, or requests that never fit.
    """
    try:
        replica = replica_of(plan, arch, known, draft=draft)
    except UnsupportedError:
        return None
    if replica is None:
        return None
    most = int(replica.slots(traffic))
    if most < 1:
        return None
    loads = sorted({*(load for load in _LOADS if load < most), most})
    made = tuple(with_running(replica, traffic, load) for load in loads)
    return Speed(
        traffic,
        made,
        replica.factors,
        replica.device,
        prefill_balance(replica, traffic),
        tuple(decode_balance(replica, traffic, load) for load in loads),
        curve=frontier(replica, traffic),
        drafting=tuple(speculation_gain(replica, traffic, load) for load in loads)
        if traffic.drafts
        else (),
        reuse=reuse_gain(replica, traffic),
        ways=plan.deployment.engine.parallelism.tensor,
    )


def replica_of(
    plan: Plan,
    arch: Architecture,
    known: Mapping[str, Known],
    *,
    draft: Architecture | None = None,
    device: Device | None = None,
) -> Replica | None:
    """One replica of the plan as the estimates take it; None for processors without figures.

    Args:
        device: This machine's processor as measured; what was calibrated with, if absent.

    Raises:
        UnsupportedError: a model type whose layers are not known.
    """
    engine, memory = plan.deployment.engine, plan.memory
    if memory is None:
        return None
    own = known.get(key_of(plan.gpu or CPU, plan.runtime))
    if not isinstance(memory, HostPlan):
        factors = own.factors if own else TENSORRT_LLM
        assert plan.gpu is not None
        return make_replica(
            arch, plan.resolved, find_gpu(plan.gpu), engine, memory, factors, draft=draft
        )
    device = device or (own.device if own else None)
    if device is None:
        return None
    return Replica(
        work=host_work(arch, plan.resolved, inference_bytes(engine)),
        device=device,
        factors=own.factors if own else CPU_ENGINE,
        kv_tokens=memory.kv_tokens,
        max_batch=engine.limits.max_batch_size,
        step_tokens=engine.limits.max_num_tokens,
        # A draft keeps its own format, whatever the target's: none is quantized.
        draft=host_work(draft, check(draft, Quantization()), inference_bytes(engine))
        if draft is not None
        else None,
        most_drafting=most_drafting(engine),
    )


def memory_on_each(
    deployment: Deployment, arch: Architecture, *, draft: Architecture | None = None
) -> list[MemoryPlan]:
    """The sum on every GPU that the deployment could be built for as it stands and fits into."""
    found = []
    for gpu in GPUS:
        try:
            memory = make_plan(deployment, arch, draft=draft, gpu=gpu.name).memory
        except ToolkitError:
            continue
        if isinstance(memory, MemoryPlan):
            found.append(memory)
    return found


def calibrate_from(
    plan: Plan,
    arch: Architecture,
    report: BenchReport,
    root: Path,
    *,
    draft: Architecture | None = None,
    host: Device | None = None,
) -> tuple[Calibration, Path]:
    """Fit the factors of the plan's processor and runtime to a report, and keep them.

    Args:
        root: The workspace's folder.
        host: This machine's processor, measured; for the CPU runtime.

    Raises:
        SpecError: the report or the plan does not say enough.
        UnsupportedError: a model type whose layers are not known.
    """
    replica = replica_of(plan, arch, {}, draft=draft, device=host)
    if replica is None:
        raise SpecError("no GPU is named", where="--gpu", hint="name the one that was measured")
    engine = plan.deployment.engine
    source = f"calibrated with {report.title} of {report.created}"
    copies = plan.deployment.serving.replicas
    drafts = drafted(engine)
    seen = observations(report, drafts=drafts, checked=checked(engine), replicas=copies)
    made = calibrate(replica, seen, source=source)
    device = replica.device
    return made, keep(root, key_of(plan.gpu or CPU, plan.runtime), device, made)


def drafted(engine: Engine) -> int:
    """Tokens drafted one after the other before each step: of a tree, as many as it is deep.

    Only so many can be accepted, however many a step checks.
    """
    chosen, depth = engine.speculation, checked(engine)
    if isinstance(chosen, Eagle):
        depth = min(depth, chosen.num_layers)
    elif isinstance(chosen, Medusa):
        depth = min(depth, chosen.num_heads)
    elif isinstance(chosen, Lookahead):
        depth = min(depth, chosen.ngram_size - 1)
    return depth


def checked(engine: Engine) -> int:
    """Drafts that a step checks for each request."""
    return engine.speculation.max_draft_len if engine.speculation else 0


def find_deployments(
    deployment: Deployment,
    arch: Architecture,
    goal: Goal,
    gpus: Sequence[Gpu],
    prices: Prices,
    known: Mapping[str, Known],
    *,
    draft: Architecture | None = None,
    keep_formats: bool = False,
) -> list[Option]:
    """The cheapest deployment on each GPU that carries the load within its targets.

    Each is one that could be built: release, runtime and GPU take its formats together.

    Raises:
        UnsupportedError: the CPU runtime, or a model type whose layers are not known.
    """
    runtime = target_of(deployment).runtime
    # A model type whose layers are not known would only look as if no GPU could do it.
    gpu_work(arch, check(arch, Quantization()), Parallelism())
    factors: dict[str, Efficiency] = {"": TENSORRT_LLM}
    for gpu in gpus:
        if own := known.get(key_of(gpu.name, runtime)):
            factors[gpu.name] = own.factors
    question = Question(
        arch,
        deployment.engine,
        deployment.quantization,
        runtime,
        factors,
        keep_formats=keep_formats,
        draft=draft,
    )
    options = search(question, goal, gpus, prices)
    return cheapest_of_each(options, lambda o: _buildable(deployment, arch, o, draft))


def _buildable(
    deployment: Deployment, arch: Architecture, option: Option, draft: Architecture | None
) -> bool:
    ways = deployment.engine.parallelism.model_copy(update={"tensor": option.tensor, "pipeline": 1})
    formats: dict[str, str | None] = {"weights": option.weights, "kv_cache": option.kv_cache}
    if option.weights != deployment.quantization.weights:
        formats["block_size"] = None
    wanted = deployment.model_copy(
        update={
            "engine": deployment.engine.model_copy(update={"parallelism": ways}),
            "quantization": deployment.quantization.model_copy(update=formats),
        }
    )
    try:
        settle(wanted, arch, draft=draft, gpu=option.gpu.name)
    except ToolkitError:
        return False
    return True


def host_device(bandwidth: float, rate: float) -> Device:
    """This machine's processor, of what was measured."""
    return Device(CPU, bandwidth, rate, rate)
