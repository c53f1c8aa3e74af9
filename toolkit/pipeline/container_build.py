"""``toolkit build --where container``: the same build, inside the release's own image.

The engine is made by the very TensorRT-LLM that will serve it. This package's source is mounted
read-only; of its dependencies only those that the image lacks are brought along, as wheels that
pip fetches on this side, so that nothing inside needs a network for them.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.doctor.need import resolved_runtime
from toolkit.pipeline.container_wheels import SCRIPT, SOURCE, asking, wheels_for
from toolkit.progress import Progress
from toolkit.repository.layout import template_root
from toolkit.serving import container, container_engines, container_run
from toolkit.serving.container_engines import Client
from toolkit.serving.container_run import Container
from toolkit.spec.models import Deployment
from toolkit.workspace import user_cache_path

WHEELS = "/opt/toolkit-wheels"
SITE = "/tmp/toolkit-site"
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_PASSED = ("HF_ENDPOINT", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "TOOLKIT_DEBUG")


@dataclass(frozen=True)
class ContainerBuild:
    """One build in a container.

    Attributes:
        file: The deployment file.
        deployment: What it says, with overrides.
        workspace: Where artifacts are kept; the same path inside.
        output: Link to the rendered repository that the inner build makes.
        options: Further words of the inner build's command line.
        offline: Use no network, here or inside.
        terminal: The output is a terminal: the inner build draws its bars on it.
        json: The inner build prints JSON, and nothing else may be on standard output.
    """

    file: Path
    deployment: Deployment
    workspace: Path
    output: Path | None = None
    options: tuple[str, ...] = ()
    offline: bool = False
    terminal: bool = False
    json: bool = False


def run(build: ContainerBuild, *, progress: Progress) -> int:
    """Build, and return the inner build's exit code; its output and progress pass through.

    Raises:
        EnvironmentError_: no container engine, no image, or packages that cannot be fetched.
        UnsupportedError: no image is known, or it holds another release.
    """
    runtime = resolved_runtime(build.deployment)
    image = container.image_of(build.deployment, runtime)
    client = container_engines.require()
    image_id = container_engines.ensure_image(
        client, image, offline=build.offline, progress=progress
    )
    container.require_release(
        client, image_id, image, container.release_of(build.deployment, runtime)
    )
    wheels = wheels_for(client, image_id, offline=build.offline, progress=progress)
    for directory in (*_writable(build), user_cache_path() / "container"):
        directory.mkdir(parents=True, exist_ok=True)
    name = f"toolkit_build_{build.deployment.name}_{secrets.token_hex(4)}"
    box = container.placed(client, _container(build, client, image), image_id)
    try:
        return _pass_through(command(build, box, name, wheels), json=build.json)
    finally:
        # An interrupted client may leave the container running.
        client.ask(*container_run.removal(box, name)[1:])


def _pass_through(words: list[str], *, json: bool) -> int:
    """Run the client on our own terminal; of JSON only what is JSON: images greet on stdout."""
    if not json:
        return subprocess.run(words, check=False).returncode
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    greeting, opening, rest = f"\n{done.stdout}".partition("\n{\n")
    sys.stderr.write(greeting[1:])
    sys.stdout.write(f"{{\n{rest}" if opening else "")
    return done.returncode


def plan(build: ContainerBuild) -> list[list[str]]:
    """The commands that :func:`run` would run; asks no engine and touches nothing.

    Raises:
        UnsupportedError: no image is known for the deployment.
    """
    client = container_engines.find() or Client("docker", Path("docker"))
    image = container.image_of(build.deployment, resolved_runtime(build.deployment))
    box = _container(build, client, image)
    wheels = user_cache_path() / "wheels" / "<python of the image>"
    return [
        [str(client.program), "pull", "--quiet", image],
        [str(client.program), *asking(image)],
        command(build, box, f"toolkit_build_{build.deployment.name}_<token>", wheels),
    ]


def _container(build: ContainerBuild, client: Client, image: str) -> Container:
    return container.compose(build.deployment, resolved_runtime(build.deployment), client, image)


def command(build: ContainerBuild, box: Container, name: str, wheels: Path) -> list[str]:
    """The ``docker run`` of the build."""
    file = build.file.absolute()
    words = [str(box.program), "run", *container_run.common(box), "--name", name]
    words += ["--network", "none" if build.offline else "bridge"]
    words += ["--tty"] if build.terminal else []
    words += ["--label", f"{container_run.LABEL}={build.deployment.name}"]
    for source, target in _sources():
        words += container_run.mount(source, target)
    words += container_run.mount(wheels, WHEELS)
    for path in _inputs(build):
        words += container_run.mount(path)
    for path in _writable(build):
        words += container_run.mount(path, writable=True)
    for variable in (*SECRETS, *_PASSED):
        # By name: the value is in the client's environment and in no process list.
        words += ["--env", variable] if variable in os.environ else []
    words += ["--workdir", str(file.parent)]
    inner = ["build", str(file), "--where", "local", "--workspace", str(build.workspace.absolute())]
    inner += ["--output", str(build.output.absolute())] if build.output else []
    start = ["python3", SCRIPT, "run", WHEELS, SITE, "--"]
    options = [*build.options, *(["--json"] if build.json else [])]
    return [*words, box.image_id or box.image, *start, *inner, *options]


def _sources() -> list[tuple[Path, str]]:
    """This package, and its templates where they lie beside it (a checkout)."""
    package = Path(container.__file__).parents[1]
    templates = template_root()
    found = [(package, f"{SOURCE}/toolkit")]
    if not templates.is_relative_to(package):
        found.append((templates, f"{SOURCE}/{templates.name}"))
    return found


def _writable(build: ContainerBuild) -> list[Path]:
    """Where the build writes: the workspace, and the folder of the link to its result."""
    outputs = [build.output.absolute().parent] if build.output else []
    return container_run.outermost([build.workspace.absolute(), *outputs])


def _inputs(build: ContainerBuild) -> list[Path]:
    """Directories that the deployment reads: its own, and those of every path in it."""
    named = [Path(text) for text in _texts(build.deployment.model_dump()) if text.startswith("/")]
    there = [path if path.is_dir() else path.parent for path in named if path.exists()]
    read = container_run.outermost([build.file.absolute().parent, *there])
    written = _writable(build)
    return [path for path in read if not any(path.is_relative_to(each) for each in written)]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
