"""How a server comes to run: as a binary of this machine, or as a container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from toolkit.progress import Progress
from toolkit.serving import install, launch, preflight
from toolkit.serving.container import ContainerLauncher
from toolkit.serving.ranks import ranks_of
from toolkit.spec.models import Deployment, Runtime


class Launcher(Protocol):
    """Prepares the machine and says what the supervisor has to start."""

    def prepare(
        self,
        deployment: Deployment,
        repository: Path,
        digest: str,
        *,
        environment: Mapping[str, str],
        progress: Progress,
    ) -> launch.LaunchPlan:
        """Get what is needed, check that it can work, return the plan.

        Raises:
            EnvironmentError_: something is missing, with the command that mends it.
        """


class BinaryLauncher:
    """Starts a tritonserver of this machine: the caller's, the container's, or the wheel's."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def prepare(
        self,
        deployment: Deployment,
        repository: Path,
        digest: str,
        *,
        environment: Mapping[str, str],
        progress: Progress,
    ) -> launch.LaunchPlan:
        """Find or install the server, check the environment, and plan."""
        binary = install.find_or_install_server(progress)
        preflight.check(binary, self._runtime)
        ranks = ranks_of(deployment, self._runtime)
        return launch.plan(
            deployment,
            repository,
            digest,
            binary,
            uses_gpu=self._runtime != "openvino",
            environment=environment,
            ranks=ranks,
            mpirun=preflight.require_mpirun() if ranks.uses_mpirun else None,
        )


def choose(deployment: Deployment, runtime: Runtime, *, offline: bool = False) -> Launcher:
    """The launcher for ``deployment``; ``runtime`` is the resolved one, not ``auto``.

    Without a choice of the user the CPU runtime gets a binary, and an NVIDIA runtime too where
    one with its backend is found (inside the serving container); everything else a container.
    """
    wanted = deployment.serving.launcher
    if wanted == "container":
        return ContainerLauncher(runtime, offline=offline)
    if wanted == "binary" or runtime == "openvino":
        return BinaryLauncher(runtime)
    found = install.find_server()
    backend = "tensorrtllm" if runtime == "tensorrt" else "python"
    if found is not None and found.origin != "installed" and found.has_backend(backend):
        return BinaryLauncher(runtime)
    return ContainerLauncher(runtime, offline=offline)
