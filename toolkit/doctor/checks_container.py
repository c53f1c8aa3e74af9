"""Checks of the container engine, and whether it can hand GPUs to a container."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

from toolkit.doctor.check import Check, Context, Result, fail, ok, skip, warn
from toolkit.doctor.need import Need
from toolkit.serving.container_engines import ENGINES, SETTING
from toolkit.spec.units import format_size

_CDI = ("/etc/cdi", "/var/run/cdi")
_UNPACKED = 40 * 2**30
"""Images of the release tables are 12 to 21 GB compressed (NVIDIA's compatibility matrix), and
unpacked beside that while they are pulled."""


def _contained(need: Need) -> bool:
    return need.contained


def _contained_gpu(need: Need) -> bool:
    return need.contained and need.on_gpu


def _engine(context: Context) -> str | None:
    """The engine that a launch would take."""
    chosen = context.machine.environ.get(SETTING)
    for engine in ENGINES:
        if chosen in (None, "", engine) and context.machine.which(engine):
            return engine
    return None


def _info(context: Context, engine: str) -> tuple[dict[str, Any], str | None]:
    """What ``info`` tells, and why it tells nothing."""
    answer = context.machine.run(engine, "info", "--format", "{{json .}}")
    if answer is None:
        return {}, "it is not installed"
    try:
        told = json.loads(answer.out or "{}")
    except ValueError:
        told = {}
    errors = told.get("ServerErrors") if isinstance(told, dict) else None
    if errors:
        return {}, str(errors[0])
    if not answer.ok or not isinstance(told, dict):
        return {}, answer.problem
    return told, None


def _works(context: Context) -> Result:
    engine = _engine(context)
    if engine is None:
        mend = (
            "install docker and the NVIDIA Container Toolkit, or run the toolkit inside the "
            "serving container (serving.launcher: binary)"
        )
        if context.need is None:
            return warn("neither docker nor podman nor nerdctl: no container can be launched", mend)
        return fail("neither docker nor podman nor nerdctl is installed", mend)
    told, problem = _info(context, engine)
    if problem is None:
        version = told.get("ServerVersion") or told.get("version", {}).get("Version", "")
        return ok(f"{engine} {version}".strip())
    denied = "permission denied" in problem.lower()
    mend = (
        "usermod -aG docker $USER, and log in again"
        if denied
        else f"systemctl start {engine}, or {SETTING}=podman"
    )
    result = fail(f"{engine}: {problem}", mend)
    return result if context.need else warn(result.detail, result.mend)


def _gpu_support(context: Context) -> Result:
    engine = _engine(context)
    if engine is None:
        return skip("no container engine")
    told, problem = _info(context, engine)
    if problem is not None:
        return skip("the engine does not answer")
    specs = [
        f"{directory}/{name}" for directory in _CDI for name in context.machine.names(directory)
    ]
    nvidia = [path for path in specs if "nvidia" in path]
    runtimes = told.get("Runtimes") or {}
    if engine == "docker" and "nvidia" in runtimes:
        return ok("docker has the runtime nvidia")
    if nvidia and engine != "docker":
        return ok(f"CDI: {nvidia[0]}")
    if engine == "docker" and context.machine.which("nvidia-container-runtime-hook"):
        return ok("docker finds the NVIDIA hook for --gpus")
    if context.need is None and not context.reading.gpus:
        return skip("no GPU to hand on")
    mend = (
        "install nvidia-container-toolkit, then: nvidia-ctk runtime configure --runtime=docker "
        "&& systemctl restart docker"
        if engine == "docker"
        else "install nvidia-container-toolkit, then: nvidia-ctk cdi generate "
        "--output=/etc/cdi/nvidia.yaml"
    )
    result = fail(f"{engine} cannot hand GPUs to a container", mend)
    return result if context.need else warn(result.detail, result.mend)


def _image(context: Context) -> Result:
    need, engine = context.need, _engine(context)
    if need is None or engine is None:
        return skip("no deployment file" if need is None else "no container engine")
    if need.image is None:
        return fail(
            "no image is known for this deployment",
            "name one under serving.image, or choose another engine.release",
        )
    answer = context.machine.run(engine, "image", "inspect", "--format", "{{.Id}}", need.image)
    if answer is not None and answer.ok:
        return ok(f"{need.image} is here")
    told, problem = _info(context, engine)
    if problem is not None:
        return skip("the engine does not answer")
    root = Path(str(told.get("DockerRootDir") or "/var/lib/containers"))
    free = context.machine.free_bytes(root)
    if free < _UNPACKED:
        return fail(
            f"{need.image} has to be pulled, {root} has {format_size(free)} free",
            f"free {format_size(_UNPACKED)} there ({engine} system prune), or move its data",
        )
    return warn(f"{need.image} has to be pulled yet", f"{engine} pull {need.image}")


def _limits(context: Context) -> Result:
    engine = _engine(context)
    if engine is None:
        return skip("no container engine")
    limit = context.machine.limit(resource.RLIMIT_MEMLOCK)
    if engine == "podman" and os.geteuid() != 0 and limit is not None:
        return warn(
            f"rootless podman cannot lock more than the user's {format_size(limit)}",
            "'memlock unlimited' in /etc/security/limits.conf, and log in again",
        )
    return ok("containers get the limits they ask for")


CONTAINER_CHECKS = (
    Check("container engine", "containers can be started", _works, _contained),
    Check("container gpus", "containers get GPUs", _gpu_support, _contained_gpu),
    Check("image", "the release's image is here", _image, _contained),
    Check("container limits", "locked memory and stack can be raised", _limits, _contained),
)
