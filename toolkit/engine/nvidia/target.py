"""What a deployment runs on: runtime, release and GPU, from what the file says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from toolkit.engine.nvidia.refusal import refusal
from toolkit.errors import SpecError
from toolkit.releases import Release, default_release, release
from toolkit.spec.gpus import Gpu, find_gpu
from toolkit.spec.models import Deployment

NvidiaRuntime = Literal["tensorrt", "pytorch"]


@dataclass(frozen=True, slots=True)
class Target:
    """Attributes:
    gpu: None where the file names none: what depends on it is left to the machine.
    """

    runtime: NvidiaRuntime
    release: Release
    gpu: Gpu | None


def target_of(deployment: Deployment, *, gpu: str | None = None) -> Target:
    """The target of a deployment for NVIDIA GPUs; ``auto`` is the pytorch runtime.

    Args:
        deployment: The deployment.
        gpu: Name of a GPU that goes before ``serving.gpu``.

    Raises:
        SpecError: a release or a GPU that is not known.
        UnsupportedError: the runtime is not in the release, or is the CPU's.
    """
    engine = deployment.engine
    if engine.runtime == "openvino":
        raise refusal(
            "engine.runtime", "openvino runs on CPUs", "set engine.runtime to pytorch or tensorrt"
        )
    runtime: NvidiaRuntime = "pytorch" if engine.runtime == "auto" else engine.runtime
    chosen = release(engine.release) if engine.release else default_release(runtime)
    if runtime not in chosen.runtimes:
        raise missing_runtime(runtime, chosen)
    return Target(runtime, chosen, _gpu(gpu, deployment.serving.gpu))


def missing_runtime(runtime: NvidiaRuntime, chosen: Release) -> Exception:
    """The error for a release without the runtime, with the way over to the other."""
    if runtime == "tensorrt":
        last = default_release("tensorrt").version
        hint = (
            f"toolkit migrate DEPLOYMENT.yaml --to {chosen.version} rewrites it for the pytorch "
            f"runtime; or set engine.release to {last}, the last with engines"
        )
    else:
        hint = f"use engine.runtime: {chosen.runtimes[0]}, or another engine.release"
    return refusal("engine.runtime", f"{chosen.title} has no {runtime} runtime", hint)


def _gpu(flag: str | None, field: str | None) -> Gpu | None:
    name = flag or field
    if name is None:
        return None
    try:
        return find_gpu(name)
    except SpecError as error:
        where = "--gpu" if flag else "serving.gpu"
        raise SpecError(error.message, where=where, hint=error.hint) from None
