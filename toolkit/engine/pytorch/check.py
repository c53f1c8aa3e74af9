"""What the LLM API cannot do, refused before anything is loaded."""

from __future__ import annotations

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia.checks import check_common
from toolkit.engine.nvidia.naming import is_default
from toolkit.engine.nvidia.refusal import refusal
from toolkit.engine.nvidia.target import NvidiaRuntime, Target
from toolkit.engine.pytorch.arguments import ModelPaths, llm_arguments
from toolkit.quantize.check import ResolvedQuantization
from toolkit.quantize.check import check as check_quantization
from toolkit.releases import Release
from toolkit.spec.gpus import Gpu
from toolkit.spec.models import Engine, Quantization
from toolkit.spec.nvidia import TensorRT

_RUNTIME: NvidiaRuntime = "pytorch"


def check(
    engine: Engine,
    quantization: Quantization,
    arch: Architecture,
    release: Release,
    gpu: Gpu | None = None,
    *,
    draft: Architecture | None = None,
) -> ResolvedQuantization:
    """Refuse in milliseconds what cannot be served; decide what was ``auto``.

    Args:
        engine: The deployment's engine section.
        quantization: Its quantization section.
        arch: The target model.
        release: The release that serves.
        gpu: The GPU to serve on, if it is known.
        draft: The draft model of draft-model speculation, if its checkpoint is there.

    Raises:
        SpecError, UnsupportedError: the first thing that cannot work, with what would.
    """
    target = Target(_RUNTIME, release, gpu)
    settled = check_common(engine, quantization, arch, target, draft=draft)
    _check_only_tensorrt(engine)
    _check_graphs(engine)
    _check_overlap(engine, release)
    _check_beside(engine, release)
    resolved = _resolved(settled, arch, engine)
    # Every remaining refusal is a field that the release's table does not have.
    llm_arguments(engine, resolved, arch, release, paths=ModelPaths())
    return resolved


def _resolved(settled: Quantization, arch: Architecture, engine: Engine) -> ResolvedQuantization:
    tensor = engine.parallelism.tensor
    return check_quantization(arch, settled, runtime=_RUNTIME, tensor=tensor)


def _check_only_tensorrt(engine: Engine) -> None:
    asked = {
        "engine.tensorrt": engine.tensorrt != TensorRT(),
        "engine.cuda_graphs.cache_size": engine.cuda_graphs.cache_size > 0,
    }
    for where, wanted in asked.items():
        if wanted:
            raise refusal(
                where,
                "only the tensorrt runtime has this",
                "remove it, or set engine.runtime to tensorrt",
            )
    if engine.batching.queue_timeout is not None:
        raise refusal(
            "engine.batching.queue_timeout",
            "requests of the pytorch runtime do not wait in Triton's queue",
            "use serving.default_deadline, which counts the wait too",
        )


def _check_graphs(engine: Engine) -> None:
    graphs = engine.cuda_graphs
    if graphs.batch_sizes is None:
        return
    if graphs.enabled is False:
        raise refusal(
            "engine.cuda_graphs.batch_sizes",
            "no graphs are recorded",
            "remove it, or engine.cuda_graphs.enabled",
        )
    largest = max(graphs.batch_sizes)
    if largest > engine.limits.max_batch_size:
        raise refusal(
            "engine.cuda_graphs.batch_sizes",
            f"{largest} exceeds max_batch_size ({engine.limits.max_batch_size})",
            "remove it, or raise engine.limits.max_batch_size",
        )


def _check_overlap(engine: Engine, release: Release) -> None:
    chosen = engine.speculation
    if chosen is None or not engine.pytorch.overlap_scheduler:
        return
    requires = release.speculation(chosen.method, _RUNTIME).requires
    if requires.get("disable_overlap_scheduler") == "true":
        raise refusal(
            "engine.pytorch.overlap_scheduler",
            f"{chosen.method} does not run beside it in {release.title}",
            "remove it",
        )


def _check_beside(engine: Engine, release: Release) -> None:
    chosen = engine.speculation
    if chosen is None:
        return
    for field in release.speculation(chosen.method, _RUNTIME).clashes_with:
        if not is_default(engine, field):
            raise refusal(
                field,
                f"{release.title} does not serve it beside {chosen.method}",
                "remove one of the two, or choose a newer engine.release",
            )
