"""What is known about one deployment's server, on disk under ``run/<name>/``.

The supervisor alone writes the state while it lives; everybody else reads it. A state whose
supervisor no longer runs is recognised by pid and start time together.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from toolkit.errors import ServerError
from toolkit.serving import guard, procfs
from toolkit.serving.ports import Endpoints
from toolkit.serving.process import clean

Status = Literal["starting", "ready", "restarting", "draining", "stopped", "failed"]
ENDED: frozenset[str] = frozenset({"stopped", "failed"})


class Restart(BaseModel):
    """One crash and what came of it. ``downtime_s`` is None until the server was ready again."""

    model_config = ConfigDict(frozen=True)

    at: str
    reason: str
    downtime_s: float | None = None


class Failure(BaseModel):
    """Why the server could not be kept up."""

    model_config = ConfigDict(frozen=True)

    message: str
    hint: str | None = None
    details: tuple[str, ...] = ()


class RunState(BaseModel):
    """The state of one deployment's server; times are ISO 8601 in UTC."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: Status
    detail: str = ""
    machine: str
    supervisor_pid: int
    supervisor_start: int
    server_pid: int | None = None
    shm_prefix: str = ""
    cleanup: tuple[str, ...] = ()
    host: str = ""
    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0
    companion_url: str = ""
    repository: str
    repository_digest: str
    plan_fingerprint: str
    launched_at: str
    ready_at: str | None = None
    start_seconds: float | None = None
    kv_cache_scale: float = 1.0
    restarts: tuple[Restart, ...] = ()
    failure: Failure | None = None

    @property
    def endpoints(self) -> Endpoints:
        """Where the server listens."""
        return Endpoints(self.host, self.http_port, self.grpc_port, self.metrics_port)

    @property
    def runs(self) -> bool:
        """Whether there is a server, or will be: supervised, and not at its end."""
        return self.status not in ENDED and self.alive

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs (on this machine)."""
        return (
            self.machine == socket.gethostname()
            and procfs.start_time(self.supervisor_pid) == self.supervisor_start
        )


def now() -> str:
    """The time, as states hold it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class RunDirectory:
    """The files of one deployment's server."""

    def __init__(self, state_dir: Path, name: str) -> None:
        self.name = name
        self.root = state_dir
        self.path = state_dir / "run" / name

    @property
    def state_file(self) -> Path:
        return self.path / "state.json"

    @property
    def plan_file(self) -> Path:
        return self.path / "plan.json"

    @property
    def log(self) -> Path:
        return self.path / "server.log"

    @property
    def supervisor_output(self) -> Path:
        """Where a detached supervisor's own standard error goes: a traceback, if it has a bug."""
        return self.path / "supervisor.err"

    def create(self) -> None:
        """Make the directory, for its owner only."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def read(self) -> RunState | None:
        """The last state; None when there never was one."""
        try:
            return RunState.model_validate_json(self.state_file.read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ServerError(
                "the state file is damaged",
                where=str(self.state_file),
                hint=f"end the server's processes by hand, then: rm -r {self.path}",
            ) from error

    def write(self, state: RunState) -> None:
        """Replace the state at once, so that a reader never sees half of it."""
        write_private(self.state_file, state.model_dump_json(indent=1))

    def admin_key(self) -> str:
        """The key of the restricted endpoints: random, made once, readable by the owner only."""
        path = self.path / "admin.key"
        with contextlib.suppress(FileNotFoundError):
            return path.read_text()
        write_private(path, secrets.token_hex(16))
        return path.read_text()

    def await_supervisor(self) -> None:
        """Wait until a supervisor that has written its last state has let go of everything."""
        with self.lock("supervisor", wait=True):
            pass

    @contextlib.contextmanager
    def lock(self, kind: str, *, wait: bool) -> Iterator[bool]:
        """Hold ``<kind>.lock``; yields whether it was got. The kernel frees it at our death."""
        self.create()
        with (self.path / f"{kind}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def clear_stale(self, state: RunState) -> list[str]:
        """Remove what a supervisor and guard killed together left: a container, shared memory."""
        if state.alive:
            return []
        clean(state.cleanup)
        return guard.remove_segments(state.shm_prefix)


def write_private(path: Path, text: str) -> None:
    """Write ``text`` with mode 0600, atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:  # noqa: PTH123 - a descriptor, for its mode
        file.write(text)
    temporary.replace(path)


def run_directories(state_dir: Path) -> list[RunDirectory]:
    """Every deployment that has a state under ``state_dir``, by name."""
    return [
        RunDirectory(state_dir, path.parent.name)
        for path in sorted((state_dir / "run").glob("*/state.json"))
    ]
