"""What a deployment will run on and whether it can, decided before any weight is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from toolkit.capacity import MemoryPlan, fit
from toolkit.capacity.host import HostPlan, fit_host
from toolkit.checkpoint.architecture import Architecture
from toolkit.doctor.gpus import FoundGpu, read_gpus
from toolkit.doctor.need import resolved_runtime, source_bytes
from toolkit.engine import pytorch, tensorrt
from toolkit.engine.nvidia import NvidiaRuntime, Target, target_of
from toolkit.engine.nvidia.formats import caution, settled_formats
from toolkit.engine.openvino import settings
from toolkit.engine.pytorch import ModelPaths, llm_arguments
from toolkit.quantize.check import ResolvedQuantization
from toolkit.quantize.check import check as check_quantization
from toolkit.spec.gpus import GPUS
from toolkit.spec.models import Deployment, DraftModel, Runtime

_CHECKED = "its table was read {how}, not run by us"
_SAME_MEMORY = 0.02
_HOW = {
    "tag": "at the release's tag",
    "documentation": "in its documentation",
    "near": "near it, in another revision",
}


@dataclass(frozen=True, slots=True)
class Settled:
    """A deployment that can be carried out, with everything that was left open decided.

    Attributes:
        target: Release and GPU; None for the CPU runtime.
    """

    runtime: Runtime
    target: Target | None
    resolved: ResolvedQuantization


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be built and served.

    Attributes:
        release: The TensorRT-LLM release; None for the CPU runtime.
        container: The image that builds and serves; None where none is needed or known.
        commands: The engine's build commands, whole; none where nothing is compiled by one.
        arguments: The LLM API's arguments; empty for other runtimes.
        memory: Of the fullest GPU, or of this machine; None where no GPU is named.
        longest_request: Tokens of the longest request that the KV cache would hold.
        notes: What is known to go wrong, or was not checked.
    """

    deployment: Deployment
    runtime: Runtime
    release: str | None
    container: str | None
    gpu: str | None
    gpus_per_replica: int
    resolved: ResolvedQuantization
    memory: MemoryPlan | HostPlan | None
    commands: tuple[str, ...] = ()
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    longest_request: int | None = None
    notes: tuple[str, ...] = ()


def detected_gpu() -> str | None:
    """The model of this machine's GPUs, where there are some, all alike, and known."""
    names = {_known(found) for found in read_gpus()}
    return names.pop() if len(names) == 1 else None


def _known(found: FoundGpu) -> str | None:
    """By name, compute capability and memory: drivers spell one card in several ways."""
    alike = [
        gpu
        for gpu in GPUS
        if gpu.name.partition("-")[0] in found.name
        and gpu.compute_capability == found.compute_capability
        and abs(gpu.memory - found.memory) <= _SAME_MEMORY * gpu.memory
    ]
    # Of several that fit, the one whose whole name is there: H100 PCIe, not the plain H100.
    named = [gpu for gpu in alike if set(gpu.name.split("-")) <= set(found.name.split())]
    best = max(named or alike[:1], key=lambda gpu: len(gpu.name), default=None)
    return best.name if best else None


def settle(
    deployment: Deployment,
    arch: Architecture,
    *,
    draft: Architecture | None = None,
    gpu: str | None = None,
) -> Settled:
    """Decide what is ``auto`` and refuse, in milliseconds, what cannot be built or served.

    Args:
        deployment: What is wanted.
        arch: The target model.
        draft: The draft model of draft-model speculation, where it is known.
        gpu: Name of a GPU that goes before ``serving.gpu``.

    Raises:
        SpecError, UnsupportedError: the first thing that cannot work, with what would.
    """
    runtime = resolved_runtime(deployment)
    _check_derived(deployment, arch)
    if runtime == "openvino" and gpu is None:
        settings.check(deployment.engine, deployment.quantization, arch)
        resolved = check_quantization(arch, deployment.quantization, runtime="openvino")
        return Settled(runtime, None, resolved)
    target = target_of(deployment, gpu=gpu)
    check = {"tensorrt": tensorrt.check, "pytorch": pytorch.check}[target.runtime]
    engine, formats = deployment.engine, deployment.quantization
    resolved = check(engine, formats, arch, target.release, target.gpu, draft=draft)
    return Settled(target.runtime, target, resolved)


def _check_derived(deployment: Deployment, arch: Architecture) -> None:
    chosen = deployment.engine.speculation
    if isinstance(chosen, DraftModel) and chosen.draft.derive_layers is not None:
        from toolkit.quantize.draft import check_draft

        check_draft(arch, chosen.draft.derive_layers)


def make_plan(
    deployment: Deployment,
    arch: Architecture,
    *,
    draft: Architecture | None = None,
    gpu: str | None = None,
) -> Plan:
    """The whole plan.

    Raises:
        SpecError, UnsupportedError: as :func:`settle`, or it does not fit into the memory.
    """
    settled = settle(deployment, arch, draft=draft, gpu=gpu)
    if settled.target is None:
        return _on_host(deployment, settled, arch, draft)
    return _on_gpus(deployment, settled.target, settled.resolved, arch, draft)


def _on_host(
    deployment: Deployment, settled: Settled, arch: Architecture, draft: Architecture | None
) -> Plan:
    memory = fit_host(deployment.engine, settled.resolved, arch, draft=draft)
    return Plan(
        deployment=deployment,
        runtime=settled.runtime,
        release=None,
        container=deployment.serving.image,
        gpu=None,
        gpus_per_replica=0,
        resolved=settled.resolved,
        memory=memory,
        longest_request=min(memory.kv_tokens, arch.max_position),
        notes=memory.notes,
    )


def _on_gpus(
    deployment: Deployment,
    target: Target,
    resolved: ResolvedQuantization,
    arch: Architecture,
    draft: Architecture | None,
) -> Plan:
    engine, release = deployment.engine, target.release
    memory = _memory(deployment, target, resolved, arch, draft)
    commands: tuple[str, ...] = ()
    arguments: dict[str, JsonValue] = {}
    if target.runtime == "tensorrt":
        made = tensorrt.build_commands(deployment, arch, release, resolved=resolved)
        commands = tuple(map(str, made))
    else:
        arguments = llm_arguments(engine, resolved, arch, release, paths=ModelPaths())
    image = release.container.name if release.container else None
    return Plan(
        deployment=deployment,
        runtime=target.runtime,
        release=release.version,
        container=deployment.serving.image or image,
        gpu=target.gpu.name if target.gpu else None,
        gpus_per_replica=engine.parallelism.world_size,
        resolved=resolved,
        memory=memory,
        commands=commands,
        arguments=arguments,
        longest_request=_longest(memory, deployment, arch),
        notes=tuple(_notes(deployment, target, memory)),
    )


def _memory(
    deployment: Deployment,
    target: Target,
    resolved: ResolvedQuantization,
    arch: Architecture,
    draft: Architecture | None,
) -> MemoryPlan | None:
    if target.gpu is None:
        return None
    runtime: NvidiaRuntime = target.runtime
    size = source_bytes(deployment.model.source) if arch.family == "other" else None
    return fit(
        deployment.engine,
        resolved,
        arch,
        target.gpu,
        runtime=runtime,
        draft=draft,
        checkpoint_bytes=size,
    )


def _longest(memory: MemoryPlan | None, deployment: Deployment, arch: Architecture) -> int | None:
    if memory is None:
        return None
    speculation = deployment.engine.speculation
    drafts = speculation.max_draft_len if speculation else 0
    return min(memory.kv_tokens - drafts, arch.max_position)


def _notes(deployment: Deployment, target: Target, memory: MemoryPlan | None) -> list[str]:
    notes = list(memory.notes) if memory else []
    if known := caution(settled_formats(deployment.quantization, target), target):
        notes.append(known)
    if target.gpu is None:
        notes.append("no GPU is named: memory and the GPU's formats were not checked (--gpu NAME)")
    if target.release.container is None and not deployment.serving.image:
        notes.append(
            f"no Triton image with {target.release.title} is known: build one, and set "
            f"serving.image: {target.release.built_image}"
        )
    section = "build_flags" if target.runtime == "tensorrt" else "llm_api"
    sources = {source.checked for source in target.release.sources[section]}
    first, *rest = [how for grade, how in _HOW.items() if grade in sources]
    how = f"{first}{''.join(f', parts of it {other}' for other in rest)}"
    notes.append(f"{target.release.title}: {_CHECKED.format(how=how)}")
    return notes
