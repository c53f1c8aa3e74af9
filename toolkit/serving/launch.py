"""What to start: the plan of one server, its command line and its environment."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from toolkit.serving import container_run
from toolkit.serving.companion import CompanionPlan
from toolkit.serving.container_run import Container
from toolkit.serving.install import ServerBinary
from toolkit.serving.plain_paths import plain_way
from toolkit.serving.ports import Endpoints
from toolkit.serving.preflight import library_path
from toolkit.serving.ranks import Ranks, spread
from toolkit.serving.ranks import variables as rank_variables
from toolkit.spec.models import Deployment, Ports

KV_CACHE_SCALE = "TOOLKIT_KV_CACHE_SCALE"
"""Environment variable: share (0 < x <= 1) of its KV cache that the model shall allocate."""

ADMIN_HEADER = "toolkit-admin-key"
"""Header that opens the restricted HTTP endpoints; gRPC: :data:`ADMIN_METADATA`."""

ADMIN_METADATA = f"triton-grpc-protocol-{ADMIN_HEADER}"
"""gRPC metadata key of the same (Triton prefixes it)."""

_RESTRICTED = "model-repository,trace,logging,shared-memory"
_COPIED = 2**20
_STOP_MARGIN = 10
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LaunchPlan(BaseModel):
    """Everything the supervisor needs to start and restart one server; holds no secret."""

    model_config = ConfigDict(frozen=True)

    name: str
    repository: Path
    repository_digest: str
    executable: Path
    backends: Path
    host: str
    ports: Ports
    ready_timeout: float
    drain_timeout: float
    max_batch_size: int
    threads: int | None = None
    gpus: tuple[int, ...] | None = None
    ranks: Ranks = Ranks()
    mpirun: Path | None = None
    container: Container | None = None
    companion: CompanionPlan | None = None
    environment: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """Equal for plans that start the same server in the same way."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def plan(
    deployment: Deployment,
    repository: Path,
    digest: str,
    binary: ServerBinary,
    *,
    uses_gpu: bool,
    environment: Mapping[str, str] | None = None,
    ranks: Ranks | None = None,
    mpirun: Path | None = None,
) -> LaunchPlan:
    """The plan for ``deployment``, served from ``repository`` by ``binary``."""
    serving, engine = deployment.serving, deployment.engine
    return LaunchPlan(
        name=deployment.name,
        repository=repository.absolute(),
        repository_digest=digest,
        executable=binary.executable,
        backends=binary.backends,
        host=serving.host,
        ports=serving.ports,
        ready_timeout=serving.ready_timeout,
        drain_timeout=serving.drain_timeout,
        max_batch_size=engine.limits.max_batch_size,
        threads=engine.threads,
        gpus=serving.gpus if uses_gpu else None,
        ranks=ranks or Ranks(),
        mpirun=mpirun,
        environment=dict(environment or {}),
    )


def mirror(repository: Path, target: Path) -> Path:
    """A copy of ``repository`` for the server to read; large files are links to the original.

    The stub runs an isolated Python that heeds no environment variable, so it writes its
    ``__pycache__`` beside the sources; an artifact must not change by being served. Sources are
    copied, because a model may resolve links to find itself.
    """
    shutil.rmtree(target, ignore_errors=True)
    for directory, subdirectories, files in os.walk(repository):
        subdirectories[:] = [each for each in subdirectories if each != "__pycache__"]
        here = target / Path(directory).relative_to(repository)
        here.mkdir(parents=True)
        for name in (*files, *subdirectories):
            path = Path(directory) / name
            if path.is_file() and path.stat().st_size <= _COPIED:
                shutil.copyfile(path, here / name)
            elif path.is_file() or path.is_symlink():
                (here / name).symlink_to(path.resolve())
    return target


def reachable(launch: LaunchPlan, repository: Path) -> tuple[LaunchPlan, Path]:
    """The same with paths that the server's python backend can pass on; see ``plain_paths``.

    Raises:
        EnvironmentError_: there is no such way to them.
    """
    if launch.container is not None:
        return launch, repository  # inside it the paths are what they are; the launcher refuses
    changes = {"backends": plain_way(launch.backends)}
    return launch.model_copy(update=changes), plain_way(repository)


def command_line(
    launch: LaunchPlan,
    repository: Path,
    endpoints: Endpoints,
    *,
    admin_key: str,
    shm_prefix: str,
) -> list[str]:
    """The server's command line (flags as in ``tritonserver --help`` of 2.51).

    The admin key stands in it, so users of the same machine may read it from the process list;
    it keeps out who reaches the server by network alone.
    """
    server = _server_command(
        launch, repository, endpoints, admin_key=admin_key, shm_prefix=shm_prefix
    )
    command = spread(launch.ranks, server, mpirun=str(launch.mpirun or "mpirun"))
    if launch.container is None:
        return command
    return container_run.server_command(
        launch.container,
        command,
        name=container_run.container_name(shm_prefix),
        deployment=launch.name,
        repositories=(repository, launch.repository),
        host=endpoints.host,
        ports=(endpoints.http, endpoints.grpc, endpoints.metrics),
        variables=server_variables(launch, kv_cache_scale=1),
        stop_timeout=math.ceil(launch.drain_timeout) + _STOP_MARGIN,
    )


def cleanup_command(launch: LaunchPlan, shm_prefix: str) -> list[str]:
    """What clears away a server that its process left behind; empty for a plain process."""
    if launch.container is None:
        return []
    return container_run.removal(launch.container, container_run.container_name(shm_prefix))


def _server_command(
    launch: LaunchPlan,
    repository: Path,
    endpoints: Endpoints,
    *,
    admin_key: str,
    shm_prefix: str,
) -> list[str]:
    host = endpoints.host if launch.container is None else container_run.ANYWHERE
    restricted = f"{_RESTRICTED}:{ADMIN_HEADER}={admin_key}"
    command = [
        str(launch.executable),
        f"--id={launch.name}",
        f"--model-repository={repository}",
        f"--backend-directory={launch.backends}",
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        f"--exit-timeout-secs={max(1, math.ceil(launch.drain_timeout))}",
        f"--http-address={host}",
        f"--http-port={endpoints.http}",
        f"--grpc-address={host}",
        f"--grpc-port={endpoints.grpc}",
        f"--metrics-address={host}",
        f"--metrics-port={endpoints.metrics}",
        f"--http-restricted-api={restricted}",
        f"--grpc-restricted-protocol={restricted}",
        # Request objects kept for reuse: with fewer than run at once, gRPC allocates anew.
        f"--grpc-infer-allocation-pool-size={max(8, launch.max_batch_size)}",
        "--log-format=ISO8601",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
    ]
    if launch.gpus is None:
        command += ["--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]
    return command


def environment(
    launch: LaunchPlan, base: Mapping[str, str], *, kv_cache_scale: float
) -> dict[str, str]:
    """The server's whole environment.

    The stub imports from the first python on PATH, so this interpreter's directory comes first.
    PYTHONPATH is dropped: a repository has to be complete in itself. For a container it is the
    environment of the client, which hands the server's variables on by name.
    """
    env = {
        key: value
        for key, value in base.items()
        if key not in (*_SECRETS, "PYTHONPATH", "PYTHONHOME")
    }
    if launch.container is not None:
        return env | server_variables(launch, kv_cache_scale=kv_cache_scale)
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    libraries = library_path()
    if libraries:
        env["LD_LIBRARY_PATH"] = libraries
    if launch.gpus is not None:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in launch.gpus)
    return env | server_variables(launch, kv_cache_scale=kv_cache_scale)


def server_variables(launch: LaunchPlan, *, kv_cache_scale: float) -> dict[str, str]:
    """What the server itself is told by variables, wherever it runs."""
    found = {"TOKENIZERS_PARALLELISM": "false", KV_CACHE_SCALE: f"{kv_cache_scale:g}"}
    if launch.threads is not None:
        found.update(dict.fromkeys(_THREADS, str(launch.threads)))
    found.update(rank_variables(launch.ranks, contained=launch.container is not None))
    return found | launch.environment
