"""What a deployment would run and write, without doing any of it.

The plan comes from the deployment alone: no server is looked for beyond this machine's own, no
container engine is asked, nothing is installed, pulled or created.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.serving import container, container_engines, install, launch, launcher
from toolkit.serving.container_engines import Client
from toolkit.serving.ports import Endpoints
from toolkit.serving.ranks import ranks_of
from toolkit.serving.state import RunDirectory
from toolkit.spec.models import Deployment, Runtime

MASK = "***"
FREE = "<free>"
TOKEN = "<token>"
START = "start the server"
_KEY = "<key>"
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL")


@dataclass(frozen=True)
class Step:
    """One command, or what the toolkit itself does (``command`` empty)."""

    why: str
    command: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """As a shell takes it."""
        return shlex.join(self.command)


@dataclass(frozen=True)
class DryRun:
    """Everything that a launch would do.

    Attributes:
        launcher: ``binary`` or ``container``.
        steps: Commands in the order they would run.
        environment: Variables that the server is given beyond this process' own; secrets masked.
        files: Files and directories that would be written, and what for.
        notes: What cannot be told beforehand.
    """

    launcher: str
    steps: tuple[Step, ...]
    environment: Mapping[str, str]
    files: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "launcher": self.launcher,
            "steps": [{"why": step.why, "command": list(step.command)} for step in self.steps],
            "environment": dict(self.environment),
            "files": dict(self.files),
            "notes": list(self.notes),
        }


def describe(
    deployment: Deployment,
    runtime: Runtime,
    repository: Path,
    state_dir: Path,
    environment: Mapping[str, str] | None = None,
) -> DryRun:
    """What deploying ``repository`` would do; ``runtime`` is the resolved one.

    Raises:
        UnsupportedError: no container image is known for the deployment.
        SpecError: its release is not known.
    """
    chosen = launcher.choose(deployment, runtime)
    if isinstance(chosen, container.ContainerLauncher):
        plan, before = _contained(deployment, runtime, repository, environment or {})
    else:
        plan, before = _bare(deployment, runtime, repository, environment or {})
    directory = RunDirectory(state_dir, deployment.name)
    return DryRun(
        launcher="container" if plan.container else "binary",
        steps=(*before, *_launching(plan, directory)),
        environment=_added(plan),
        files=_files(directory, plan),
        notes=_notes(plan),
    )


def _launching(plan: launch.LaunchPlan, directory: RunDirectory) -> list[Step]:
    ports = plan.ports
    endpoints = Endpoints(plan.host, ports.http, ports.grpc, ports.metrics)
    prefix = f"toolkit_{plan.name}_{TOKEN}_"
    command = launch.command_line(
        plan, directory.path / "repository", endpoints, admin_key=_KEY, shm_prefix=prefix
    )
    steps = [Step(START, tuple(_free_ports(command)))]
    after = launch.cleanup_command(plan, prefix)
    if after:
        steps.append(Step("whatever ended it: clear away the container", tuple(after)))
    return steps


def _contained(
    deployment: Deployment, runtime: Runtime, repository: Path, environment: Mapping[str, str]
) -> tuple[launch.LaunchPlan, list[Step]]:
    client = container_engines.find() or Client("docker", Path("docker"))
    image = container.image_of(deployment, runtime)
    made = container.compose(deployment, runtime, client, image)
    program = str(client.program)
    before = [
        Step("is the engine there", (program, "info", "--format", "{{json .}}")),
        Step("is the image there", (program, "image", "inspect", "--format", "{{.Id}}", image)),
        Step("only if it is not", (program, "pull", "--quiet", image)),
    ]
    return container.plan(deployment, runtime, repository, "", made, environment), before


def _bare(
    deployment: Deployment, runtime: Runtime, repository: Path, environment: Mapping[str, str]
) -> tuple[launch.LaunchPlan, list[Step]]:
    binary = install.find_server()
    before = []
    if binary is None:
        before = [Step(f"install the server of {install.PACKAGE} {install.PACKAGE_VERSION}")]
        home = install.install_directory() / "pytriton/tritonserver"
        backends = home / f"backends-{install.python_version()}"
        binary = install.ServerBinary(home / "bin/tritonserver", backends, "installed")
    plan = launch.plan(
        deployment,
        repository,
        "",
        binary,
        uses_gpu=runtime != "openvino",
        environment=environment,
        ranks=ranks_of(deployment, runtime),
        mpirun=Path("mpirun"),
    )
    return plan, before


def _free_ports(command: list[str]) -> list[str]:
    """Ports that the launch would choose, in words instead of 0."""
    shown = []
    for word in command:
        if word.endswith("-port=0"):
            shown.append(f"{word[:-1]}{FREE}")
        elif word.endswith(":0:0"):
            shown.append(f"{word[:-3]}{FREE}:{FREE}")
        else:
            shown.append(word)
    return shown


def _added(plan: launch.LaunchPlan) -> dict[str, str]:
    whole = launch.environment(plan, os.environ, kv_cache_scale=1)
    changed = {key: value for key, value in whole.items() if os.environ.get(key) != value}
    return {key: masked(key, value) for key, value in sorted(changed.items())}


def masked(name: str, value: str) -> str:
    """``value``, unless the name says that it is a secret."""
    return MASK if any(word in name.upper().split("_") for word in _SECRET) else value


def _files(directory: RunDirectory, plan: launch.LaunchPlan) -> dict[str, str]:
    found = {
        str(directory.plan_file): "the plan, for the supervisor",
        str(directory.state_file): "the state, for status, logs and stop",
        str(directory.path / "admin.key"): "key of the restricted endpoints, mode 0600",
        str(directory.log): "the server's log, rotated",
        str(directory.supervisor_output): "errors of the supervisor itself",
        str(directory.path / "deploy.lock"): "one deploy at a time",
        str(directory.path / "supervisor.lock"): "one supervisor at a time",
        str(directory.path / "repository"): "a copy of the repository, large files linked",
    }
    if plan.container is not None and plan.container.cache is not None:
        found[str(plan.container.cache)] = "what libraries in the container compile and keep"
    return found


def _notes(plan: launch.LaunchPlan) -> tuple[str, ...]:
    ports = plan.ports
    notes = [
        f"{TOKEN} is chosen by the supervisor; {_KEY} is made once and kept in admin.key",
    ]
    if 0 in (ports.http, ports.grpc, ports.metrics):
        notes.append(f"{FREE} is chosen at launch")
    if plan.container is not None:
        notes.append("the container is run by the image's id, found when it is deployed")
    return tuple(notes)
