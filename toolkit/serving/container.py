"""The launcher ``container``: Triton in the image of the deployment's release."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from toolkit import releases
from toolkit.errors import UnsupportedError
from toolkit.progress import Progress
from toolkit.serving import container_engines, container_run, launch
from toolkit.serving.container_engines import Client
from toolkit.serving.container_run import Container
from toolkit.serving.install import ServerBinary
from toolkit.serving.plain_paths import require_plain
from toolkit.serving.ranks import ranks_of
from toolkit.spec.models import Deployment, Runtime
from toolkit.workspace import user_cache_path

SERVER = ServerBinary(container_run.TRITON, container_run.BACKENDS, "container")

_VERSION = "import importlib.metadata as m; print(m.version('tensorrt_llm'))"


def release_of(deployment: Deployment, runtime: Runtime) -> releases.Release | None:
    """The TensorRT-LLM release that ``deployment`` is for; None for the CPU runtime.

    Raises:
        SpecError: its ``engine.release`` is not known.
    """
    if runtime not in ("tensorrt", "pytorch"):
        return None
    chosen = deployment.engine.release
    kind: Literal["tensorrt", "pytorch"] = "tensorrt" if runtime == "tensorrt" else "pytorch"
    return releases.release(chosen) if chosen else releases.default_release(kind)


def image_of(deployment: Deployment, runtime: Runtime) -> str:
    """The image to serve from: ``serving.image``, or the one that holds the release.

    Raises:
        UnsupportedError: none is known.
    """
    if deployment.serving.image:
        return deployment.serving.image
    release = release_of(deployment, runtime)
    if release is None:
        raise UnsupportedError(
            "there is no container image for the CPU runtime",
            where="serving.launcher",
            hint="set serving.launcher: binary, or name an image of yours under serving.image",
        )
    if release.container is None:
        raise UnsupportedError(
            f"no Triton image with {release.title} is known",
            where="engine.release",
            hint="build one in a checkout of the release (make -C docker tritonrelease_build "
            f"IMAGE_TAG={release.version}) and set serving.image: {release.built_image}; or choose "
            "another engine.release",
        )
    return release.container.name


class ContainerLauncher:
    """Starts a tritonserver in a container of docker, podman or nerdctl."""

    def __init__(self, runtime: Runtime, *, offline: bool = False) -> None:
        self._runtime = runtime
        self._offline = offline

    def prepare(
        self,
        deployment: Deployment,
        repository: Path,
        digest: str,
        *,
        environment: Mapping[str, str],
        progress: Progress,
    ) -> launch.LaunchPlan:
        """Find the engine, get the image, check what it holds, and plan."""
        require_plain(repository)
        image = image_of(deployment, self._runtime)
        client = container_engines.require()
        found = container_engines.ensure_image(
            client, image, offline=self._offline, progress=progress
        )
        require_release(client, found, image, release_of(deployment, self._runtime))
        cache = user_cache_path() / "container"
        cache.mkdir(parents=True, exist_ok=True)
        container = placed(client, compose(deployment, self._runtime, client, image), found)
        mounts = container_run.referenced(repository, store_of(repository))
        container = container.model_copy(update={"mounts": mounts})
        return plan(deployment, self._runtime, repository, digest, container, environment)


def compose(deployment: Deployment, runtime: Runtime, client: Client, image: str) -> Container:
    """The container as the deployment alone tells it; asks no engine and touches nothing."""
    gpus = () if runtime == "openvino" else deployment.serving.gpus
    return Container(
        engine=client.engine,
        program=client.program,
        image=image,
        gpus=gpus,
        shm_size=container_run.shm_size(len(gpus)),
        user=f"{os.getuid()}:{os.getgid()}",
        relabel=client.engine == "podman" and Path("/sys/fs/selinux/enforce").exists(),
        cache=user_cache_path() / "container",
    )


def placed(client: Client, composed: Container, image_id: str) -> Container:
    """``composed`` with what only the engine of this machine can tell."""
    rootless = container_engines.is_rootless(client)
    return composed.model_copy(
        update={
            "image_id": image_id,
            "rootless": rootless,
            # Rootless docker and nerdctl map the user to root; podman keeps the id.
            "user": "0:0" if rootless and client.engine != "podman" else composed.user,
            "memlock": container_engines.unlimited_memlock(rootless=rootless),
        }
    )


def plan(
    deployment: Deployment,
    runtime: Runtime,
    repository: Path,
    digest: str,
    container: Container,
    environment: Mapping[str, str],
) -> launch.LaunchPlan:
    """The plan of a server in ``container``."""
    made = launch.plan(
        deployment,
        repository,
        digest,
        SERVER,
        uses_gpu=runtime != "openvino",
        environment=environment,
        ranks=ranks_of(deployment, runtime),
    )
    return made.model_copy(update={"container": container})


def store_of(repository: Path) -> Path:
    """The workspace that a built repository lies in; its own folder for any other one."""
    parents = repository.absolute().parents
    return parents[2] if len(parents) > 2 and parents[1].name == "repository" else parents[0]


def require_release(
    client: Client, image_id: str, image: str, release: releases.Release | None
) -> None:
    """An image's label does not tell its TensorRT-LLM; an engine loads in its own release only.

    Raises:
        UnsupportedError: the image holds another release.
    """
    if release is None:
        return
    found = container_engines.run_once(client, image_id, ["python3", "-c", _VERSION])
    if not found or release.covers(found):
        return  # an image that does not tell is left to the server's own check
    raise UnsupportedError(
        f"the image holds TensorRT-LLM {found}, the deployment is for {release.version}",
        where=image,
        hint=f"set engine.release: {found}, or name an image with {release.version} under "
        "serving.image",
    )
