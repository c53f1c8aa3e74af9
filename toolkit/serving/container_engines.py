"""Docker, podman or nerdctl: which one is here, whether it works, which images it has."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from toolkit.errors import EnvironmentError_, SpecError
from toolkit.progress import Progress
from toolkit.serving.container_run import Engine

SETTING = "TOOLKIT_CONTAINER_ENGINE"
ENGINES: tuple[Engine, ...] = get_args(Engine)
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Client:
    """A container engine's command line."""

    engine: Engine
    program: Path

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a short command and return its output; one that hangs is an error of its own."""
        command = [str(self.program), *words]
        try:
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=_ANSWER_SECONDS,
            )
        except subprocess.TimeoutExpired:
            late = f"no answer within {_ANSWER_SECONDS:g} s"
            return subprocess.CompletedProcess(command, 124, "", late)


def find() -> Client | None:
    """The engine of ``$TOOLKIT_CONTAINER_ENGINE``, else the first one on PATH.

    Raises:
        SpecError: the setting names another program.
        EnvironmentError_: what the setting names is not installed.
    """
    chosen = os.environ.get(SETTING)
    if chosen and chosen not in ENGINES:
        raise SpecError(
            f"{chosen!r} is not a container engine", where=SETTING, hint=f"use {', '.join(ENGINES)}"
        )
    for engine in ENGINES:
        path = shutil.which(engine) if chosen in (None, "", engine) else None
        if path:
            return Client(engine, Path(path))
    if chosen:
        raise EnvironmentError_(f"{chosen} is not installed", where=SETTING, hint=_install_hint())
    return None


def require() -> Client:
    """:func:`find`, and its daemon answers.

    Raises:
        EnvironmentError_: there is none, its daemon does not answer, or runs on another machine.
    """
    client = find()
    if client is None:
        raise EnvironmentError_(
            "no container engine is installed (docker, podman or nerdctl)", hint=_install_hint()
        )
    remote = os.environ.get("DOCKER_HOST", "")
    if client.engine == "docker" and remote.partition("://")[0] in ("tcp", "ssh", "http", "https"):
        raise EnvironmentError_(
            "docker's daemon is on another machine, which cannot see the repository's files",
            where=f"DOCKER_HOST={remote}",
            hint="run the toolkit on that machine, or unset DOCKER_HOST",
        )
    answer = client.ask("info", "--format", "{{json .}}")
    problem = _problem(answer)
    if problem:
        raise EnvironmentError_(
            f"{client.engine} does not work: {problem}",
            where=str(client.program),
            hint=_daemon_hint(client.engine, problem),
        )
    return client


def _problem(answer: subprocess.CompletedProcess[str]) -> str | None:
    """Why ``info`` failed; the client of docker exits with 0 without a daemon, saying so."""
    try:
        told: Any = json.loads(answer.stdout or "null")
    except ValueError:
        told = None
    if isinstance(told, dict) and told.get("ServerErrors"):
        return str(told["ServerErrors"][0])
    if answer.returncode == 0:
        return None
    lines = answer.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {answer.returncode}"


def _install_hint() -> str:
    return (
        "install docker and the NVIDIA Container Toolkit, or run the toolkit inside the serving "
        "container with serving.launcher: binary"
    )


def _daemon_hint(engine: Engine, problem: str) -> str:
    if "permission denied" in problem.lower():
        return "add yourself to the group docker (usermod -aG docker $USER) and log in again"
    if engine == "docker":
        return "systemctl start docker; or use podman: TOOLKIT_CONTAINER_ENGINE=podman"
    return f"see: {engine} info"


def image_id(client: Client, image: str) -> str | None:
    """What ``image`` stands for on this machine; None if it is not here."""
    answer = client.ask("image", "inspect", "--format", "{{.Id}}", image)
    found = answer.stdout.strip()
    return found if answer.returncode == 0 and found else None


def ensure_image(client: Client, image: str, *, offline: bool, progress: Progress) -> str:
    """The id of ``image``, pulled if it is not here.

    Raises:
        EnvironmentError_: it is not here and cannot be pulled.
    """
    found = image_id(client, image)
    if found is None and offline:
        raise EnvironmentError_(
            f"the image {image} is not on this machine, and --offline forbids to pull it",
            hint=f"{client.engine} pull {image}, or {client.engine} load on a copy of it",
        )
    if found is None:
        _pull(client, image, progress)
        found = image_id(client, image)
    if found is None:
        raise EnvironmentError_(f"{client.engine} pulled {image} but does not have it")
    return found


def _pull(client: Client, image: str, progress: Progress) -> None:
    progress.start(f"pulling {image}")
    command = [str(client.program), "pull", "--quiet", image]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            process.terminate()  # what is pulled already stays and is not pulled again
            raise
    if process.returncode != 0:
        progress.finish("failed")
        raise EnvironmentError_(
            f"cannot pull {image}",
            where=client.engine,
            hint="check the tag and the network; behind a login: docker login nvcr.io; without a "
            f"network: {client.engine} load on a copy of the image",
            details=output.strip().splitlines()[-5:],
        )
    progress.finish()


def is_rootless(client: Client) -> bool:
    """Whether containers run without root's rights on this machine."""
    if client.engine == "docker":
        return "rootless" in client.ask("info", "--format", "{{json .SecurityOptions}}").stdout
    return os.geteuid() != 0


def unlimited_memlock(*, rootless: bool) -> bool:
    """Whether a container may lock any amount of memory; rootless it has the user's limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return not rootless or hard == resource.RLIM_INFINITY


def run_once(client: Client, image: str, command: Sequence[str]) -> str | None:
    """Output of a command in a container without network or GPUs; None if it failed."""
    answer = client.ask(
        *("run", "--rm", "--pull", "never", "--network", "none", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--entrypoint", command[0], image, *command[1:]),
    )
    return answer.stdout.strip() if answer.returncode == 0 else None
