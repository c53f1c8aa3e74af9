"""The ``docker run`` of one server, and of one build: what a container may see and do.

The client stays attached below the guard: the log arrives on its output, SIGTERM is passed on to
the server (``--sig-proxy`` is the default), its exit code is the server's. Killing the client
leaves the container running, so whoever ends it also runs :func:`removal`.

Values, and where they are from: ``--shm-size=2g --ulimit memlock=-1`` are those of
tensorrtllm_backend's README for one GPU, ``--ulimit stack=67108864`` those of NVIDIA's framework
containers; ``--gpus '"device=0,1"'`` is docker's spelling of exact devices, podman takes CDI names
(NVIDIA Container Toolkit, "Support for Container Device Interface").
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from toolkit.errors import SpecError

Engine = Literal["docker", "podman", "nerdctl"]

TRITON = Path("/opt/tritonserver/bin/tritonserver")
BACKENDS = Path("/opt/tritonserver/backends")
ANYWHERE = "0.0.0.0"
"""Where a server listens inside its container; the published ports choose who reaches it."""

HOME = "/cache"
USER = "toolkit"
LABEL = "toolkit.deployment"

_SHM_PER_GPU = 2 * 2**30
_STACK = 67108864
_ABSOLUTE = re.compile(r'(?:^|["\'\s:=])(/[^"\'\s:,;]+)')
_READ = 2**20


class Container(BaseModel):
    """What is the same for every start of one server's container.

    Attributes:
        engine: Which client starts it.
        program: The client's path.
        image: As the user or the release table names it.
        image_id: What that name stood for when the server was deployed; run instead of the name,
            so that a restart takes the same software.
        gpus: GPU numbers of the machine; inside they count from 0.
        shm_size: Bytes of /dev/shm, an upper bound that is not reserved.
        user: ``uid:gid`` that the server runs as.
        rootless: The engine runs without root: user ids are mapped, limits cannot be raised.
        memlock: Whether locked memory can be unlimited.
        relabel: SELinux is on: bind mounts are refused unless labels are off.
        cache: Writable directory for what libraries compile or download; the container's HOME.
        mounts: Further read-only paths, at the same place as on the machine.
    """

    model_config = ConfigDict(frozen=True)

    engine: Engine
    program: Path
    image: str
    image_id: str | None = None
    gpus: tuple[int, ...] = ()
    shm_size: int = _SHM_PER_GPU
    user: str
    rootless: bool = False
    memlock: bool = True
    relabel: bool = False
    cache: Path | None = None
    mounts: tuple[Path, ...] = ()


def shm_size(gpus: int) -> int:
    """Bytes of /dev/shm: every rank's tensors and collective operations pass through it."""
    return _SHM_PER_GPU * max(1, gpus)


def container_name(shm_prefix: str) -> str:
    """The container of one supervisor, named after its token: two supervisors never share one."""
    return shm_prefix.rstrip("_")


def removal(container: Container, name: str) -> list[str]:
    """The command that ends and removes the container, whatever became of its client."""
    return [str(container.program), "rm", "--force", "--volumes", name]


def server_command(
    container: Container,
    server: Sequence[str],
    *,
    name: str,
    deployment: str,
    repositories: Iterable[Path],
    host: str,
    ports: Iterable[int],
    variables: Iterable[str],
    stop_timeout: int,
) -> list[str]:
    """The command line that runs ``server`` in its container and stays until it ends.

    Args:
        container: What it runs in.
        server: The server's own command line.
        name: The container's name.
        deployment: The deployment's name, its label.
        repositories: Read-only paths beside ``container.mounts``.
        host: Address of this machine that the ports are published on.
        ports: Ports, the same inside and outside.
        variables: Names of environment variables whose values the client's environment holds.
        stop_timeout: Seconds that ``docker stop`` waits before it kills.
    """
    command = [str(container.program), "run", *common(container)]
    command += ["--name", name, "--label", f"{LABEL}={deployment}", "--restart", "no"]
    command += ["--stop-timeout", str(stop_timeout)]
    if container.engine != "nerdctl":
        # The attached client hands the log to the supervisor, which keeps and rotates it.
        command += ["--log-driver", "none"]
    if not (container.rootless and container.engine == "podman"):
        command += ["--network", "bridge"]  # rootless podman has a default of its own that fits
    for port in ports:
        command += ["--publish", f"{bracketed(host)}:{port}:{port}"]
    command += [w for path in outermost([*repositories, *container.mounts]) for w in mount(path)]
    command += [word for variable in sorted(variables) for word in ("--env", variable)]
    return [*command, container.image_id or container.image, *server]


def common(container: Container) -> list[str]:
    """Flags that servers and builds share: rights, limits, devices, home."""
    command = ["--rm", "--init", "--pull", "never"]
    command += ["--user", container.user]
    if container.rootless and container.engine == "podman":
        command += ["--userns", "keep-id"]
    command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    if container.relabel:
        command += ["--security-opt", "label=disable"]
    command += ["--shm-size", str(container.shm_size)]
    if container.memlock:
        command += ["--ulimit", "memlock=-1"]
    command += ["--ulimit", f"stack={_STACK}"]
    command += devices(container.engine, container.gpus)
    if container.cache is not None:
        command += mount(container.cache, HOME, writable=True)
        # Libraries ask for a name and a home, which a bare user id does not have.
        command += ["--env", f"HOME={HOME}", "--env", f"USER={USER}"]
    return command


def devices(engine: Engine, gpus: Sequence[int]) -> list[str]:
    """Exactly these GPUs and no other."""
    if not gpus:
        return []
    if engine == "podman":
        return [word for gpu in gpus for word in ("--device", f"nvidia.com/gpu={gpu}")]
    listed = ",".join(str(gpu) for gpu in gpus)
    # The client splits the value at commas unless it stands in quotes of its own.
    return ["--gpus", f'"device={listed}"']


def mount(source: Path, target: str | None = None, *, writable: bool = False) -> list[str]:
    """A bind mount; without ``target`` at the same place as on the machine.

    Raises:
        SpecError: the path has a character that the flag cannot hold.
    """
    if any(character in str(source) for character in ',"\n'):
        raise SpecError(
            "a path with a comma, a quote or a line break cannot be mounted into a container",
            where=str(source),
            hint="move it, or choose another --workspace",
        )
    words = ["type=bind", f"source={source}", f"target={target or source}"]
    return ["--mount", ",".join(words if writable else [*words, "readonly"])]


def bracketed(host: str) -> str:
    """An address as ``--publish`` takes it: no name, and one of IPv6 in brackets."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        with contextlib.suppress(OSError):
            host = socket.gethostbyname(host)
    return f"[{host}]" if ":" in host else host


def client_environment(base: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """The client's environment: its own settings, and the values of what is passed by name."""
    return {**base, **values}


def referenced(repository: Path, within: Path) -> tuple[Path, ...]:
    """Paths outside ``repository`` that its links lead to or its small text files name.

    Engines and checkpoints may lie in other artifacts; the server has to see them at the same
    place. Names count only below ``within``: a container has a /usr of its own.
    """
    root, store = repository.resolve(), within.resolve()
    found: set[Path] = set()
    for path in sorted(repository.rglob("*")):
        if path.is_symlink():
            found.add(path.resolve())
        elif path.suffix in (".pbtxt", ".yaml", ".json") and path.stat().st_size <= _READ:
            named = map(Path, _ABSOLUTE.findall(path.read_text(encoding="utf-8", errors="replace")))
            found.update(each for each in named if each.resolve().is_relative_to(store))
    return tuple(
        sorted(each for each in found if each.exists() and not each.resolve().is_relative_to(root))
    )


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Without those that lie below another one of them."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(each) for each in kept):
            kept.append(path)
    return kept
