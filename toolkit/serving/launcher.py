"""How a server comes to run: as a binary of this machine, or (later) as a container."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from toolkit.errors import UnsupportedError
from toolkit.progress import Progress
from toolkit.serving import install, launch, preflight
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
        return launch.plan(
            deployment,
            repository,
            digest,
            binary,
            uses_gpu=self._runtime != "openvino",
            environment=environment,
        )


def choose(deployment: Deployment, runtime: Runtime) -> Launcher:
    """The launcher for ``deployment``; ``runtime`` is the resolved one, not ``auto``.

    Raises:
        UnsupportedError: the deployment needs a container, which cannot be launched yet.
    """
    wanted = deployment.serving.launcher
    if wanted == "container":
        raise UnsupportedError(
            "launching a container is not supported yet",
            where="serving.launcher",
            hint="set serving.launcher: binary, and run this inside the serving container",
        )
    if wanted == "binary" or runtime == "openvino":
        return BinaryLauncher(runtime)
    found = install.find_server()
    backend = "tensorrtllm" if runtime == "tensorrt" else "python"
    if found is not None and found.origin != "installed" and found.has_backend(backend):
        return BinaryLauncher(runtime)
    raise UnsupportedError(
        f"the {runtime} runtime needs NVIDIA's serving container, and launching it is not "
        "supported yet",
        where="serving.launcher",
        hint="run `toolkit deploy` inside the container of the release (tritonserver is found "
        "at /opt/tritonserver), or use engine.runtime: openvino",
    )
