"""Bring a rendered repository up under a supervisor, find it again, stop it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

from toolkit.errors import ServerError
from toolkit.progress import Progress
from toolkit.serving import launcher, logs, ports, procfs
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.ports import Endpoints
from toolkit.serving.state import ENDED, RunDirectory, RunState, write_private
from toolkit.spec.models import Deployment
from toolkit.workspace import root_option

_POLL = 0.05
_STOP_MARGIN = 30.0


class RunningServer:
    """A server that is up. As a context manager it stops the server at the end.

    ``reused`` tells that it was running before, from the same repository.
    """

    def __init__(self, directory: RunDirectory, state: RunState, *, reused: bool) -> None:
        self._directory = directory
        self._owner: int | None = None
        self.name = state.name
        self.endpoints: Endpoints = state.endpoints
        self.reused = reused

    @property
    def http_url(self) -> str:
        """Base URL of Triton's HTTP API."""
        return self.endpoints.http_url

    @property
    def grpc_url(self) -> str:
        """Address for a gRPC client, without scheme."""
        return self.endpoints.grpc_url

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return self.endpoints.metrics_url

    @property
    def companion_url(self) -> str:
        """Where the process beside it listens; empty without one."""
        return self.state().companion_url

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._directory.log

    def state(self) -> RunState:
        """The state as it is now."""
        state = self._directory.read()
        assert state is not None
        return state

    def stop(self, *, force: bool = False) -> None:
        """Drain and stop; ``force`` ends requests in flight."""
        stop(self._directory, force=force)
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(force=kind is not None)


def repository_digest(repository: Path) -> str:
    """SHA-256 over names, sizes and contents; of files over 1 MiB only name, size and mtime."""
    total = hashlib.sha256()
    files = (each for each in repository.rglob("*") if each.is_file())
    for path in sorted(each for each in files if "__pycache__" not in each.parts):
        status = path.stat()
        total.update(f"{path.relative_to(repository)}\0{status.st_size}\0".encode())
        if status.st_size <= 2**20:
            total.update(path.read_bytes())
        else:
            total.update(str(status.st_mtime_ns).encode())
    return total.hexdigest()


def launch(
    deployment: Deployment,
    repository: Path,
    state_dir: Path,
    *,
    runtime: Literal["tensorrt", "pytorch", "openvino"],
    progress: Progress,
    digest: str | None = None,
    environment: Mapping[str, str] | None = None,
    replace: bool = False,
    tied: bool = False,
) -> RunningServer:
    """Start the server in the background and wait until it is ready.

    Args:
        deployment: Whose server it is.
        repository: The rendered model repository.
        state_dir: The workspace's root; state and log go to ``run/<name>/`` below it.
        runtime: The resolved runtime.
        progress: Told what is waited for.
        digest: Identity of the repository; computed when absent.
        environment: More variables for the server.
        replace: Stop a server of this name that serves another repository; without it, refuse.
        tied: The server stops when this process ends, in whatever way.

    Raises:
        ServerError: it did not become ready, or another one has its name; with the log's end.
        EnvironmentError_: the machine lacks something.
    """
    prepared = prepare(
        deployment,
        repository,
        runtime=runtime,
        progress=progress,
        digest=digest,
        environment=environment,
    )
    return start(prepared, state_dir, progress=progress, replace=replace, tied=tied)


def prepare(
    deployment: Deployment,
    repository: Path,
    *,
    runtime: Literal["tensorrt", "pytorch", "openvino"],
    progress: Progress,
    digest: str | None = None,
    environment: Mapping[str, str] | None = None,
    offline: bool = False,
) -> LaunchPlan:
    """Choose the launcher, get the server, check the machine; see :func:`launch`."""
    return launcher.choose(deployment, runtime, offline=offline).prepare(
        deployment,
        repository,
        digest or repository_digest(repository),
        environment=environment or {},
        progress=progress,
    )


def start(
    plan: LaunchPlan,
    state_dir: Path,
    *,
    progress: Progress,
    replace: bool = False,
    tied: bool = False,
) -> RunningServer:
    """Start the supervisor of ``plan`` and wait for readiness; see :func:`launch`."""
    directory = RunDirectory(state_dir, plan.name)
    with directory.lock("deploy", wait=True):
        present = running_already(directory, plan, replace=replace)
        if present is not None:
            state = _await_ready(directory, None, progress)
            return RunningServer(directory, state, reused=True)
        write_private(directory.plan_file, plan.model_dump_json(indent=1))
        owner, supervisor = _spawn_supervisor(directory, state_dir, tied=tied)
        try:
            state = _await_ready(directory, supervisor, progress)
        except BaseException:
            _end(supervisor)
            if owner is not None:
                os.close(owner)
            raise
    server = RunningServer(directory, state, reused=False)
    server._owner = owner
    return server


def running_already(directory: RunDirectory, plan: LaunchPlan, *, replace: bool) -> RunState | None:
    """The state of a live server of the same plan; clears a dead one's traces.

    Raises:
        ServerError: a live server of that name has another plan and ``replace`` is off.
    """
    state = directory.read()
    if state is None:
        return None
    if not state.alive:
        directory.clear_stale(state)
        return None
    if state.status in ENDED:
        directory.await_supervisor()
        return None
    if state.plan_fingerprint == plan.fingerprint:
        return state
    if not replace:
        raise ServerError(
            f"{plan.name} is running already, from another build or with other settings",
            where=f"{state.endpoints.http_url} (supervisor pid {state.supervisor_pid})",
            hint=f"toolkit stop {plan.name}{root_option(directory.root)}, or deploy with --replace",
        )
    stop(directory)
    return None


def _spawn_supervisor(
    directory: RunDirectory, state_dir: Path, *, tied: bool
) -> tuple[int | None, subprocess.Popen[bytes]]:
    """A supervisor that has no tie to our terminal, and to our life only if ``tied``."""
    command = [sys.executable, "-m", ports.DAEMON, str(state_dir.absolute()), directory.name]
    ours: int | None = None
    theirs: tuple[int, ...] = ()
    if tied:
        read_end, ours = os.pipe()
        theirs = (read_end,)
        command += ["--owner", str(read_end)]
    directory.state_file.unlink(missing_ok=True)
    with directory.supervisor_output.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=theirs,
            start_new_session=True,
            env=_environment(),
        )
    for descriptor in theirs:
        os.close(descriptor)
    return ours, process


def _environment() -> dict[str, str]:
    """Ours, with this package importable even where it is not installed."""
    import toolkit

    root = str(Path(toolkit.__file__).parent.parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _await_ready(
    directory: RunDirectory, supervisor: subprocess.Popen[bytes] | None, progress: Progress
) -> RunState:
    """Follow the state until the server is ready.

    Raises:
        ServerError: it failed, or its supervisor ended.
    """
    state = directory.read()
    if supervisor is None and state and state.status == "ready":
        return state  # nothing is started
    progress.start(f"starting the server of {directory.name}")
    said = ""
    while True:
        ended = supervisor is not None and supervisor.poll() is not None
        state = directory.read()  # after that look, so that last words are not missed
        if state and state.detail and state.detail != said:
            said = state.detail
            progress.note(said)
        if state and state.status == "ready":
            progress.finish(f"ready after {state.start_seconds or 0:.1f} s")
            return state
        if state and state.status in ENDED:
            progress.finish(state.status)
            raise failure(state)
        if ended:
            raise _supervisor_died(directory)
        if supervisor is None and not (state and state.alive):
            raise _supervisor_died(directory)
        time.sleep(_POLL)


def failure(state: RunState) -> ServerError:
    """The error that a state which ended stands for."""
    found = state.failure
    return ServerError(
        found.message if found else f"{state.name} was stopped before it was ready",
        where=state.name,
        hint=found.hint if found else None,
        details=found.details if found else (),
    )


def _supervisor_died(directory: RunDirectory) -> ServerError:
    return ServerError(
        f"the supervisor of {directory.name} ended unexpectedly",
        where=str(directory.supervisor_output),
        details=logs.tail(directory.supervisor_output, 20) + logs.tail(directory.log, 20),
    )


def _end(supervisor: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        supervisor.terminate()
    try:
        supervisor.wait(_STOP_MARGIN)
    except subprocess.TimeoutExpired:
        supervisor.kill()


def stop(directory: RunDirectory, *, force: bool = False) -> RunState | None:
    """Drain and stop the server of ``directory``; returns its last state, None if none was there.

    Waits for the end: at most the drain timeout and half a minute, then the supervisor is killed,
    and the guard kills the rest. ``force`` ends requests in flight at once.

    Raises:
        ServerError: it runs on another machine.
    """
    state = directory.read()
    if state is None:
        return None
    _require_here(state)
    if not state.alive:
        directory.clear_stale(state)
        return state
    if state.status in ENDED:
        directory.await_supervisor()  # its process may be a program that goes on
        return state
    _signal(state, signal.SIGTERM)
    if force:
        time.sleep(0.2)  # two signals at once would be one
        _signal(state, signal.SIGTERM)
    _await_end(state, directory)
    return directory.read()


def _signal(state: RunState, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.supervisor_pid, number)


def _await_end(state: RunState, directory: RunDirectory) -> None:
    """Until the supervisor has ended, or only its program goes on; killed if it takes too long."""
    deadline = time.monotonic() + _drain_timeout(directory) + _STOP_MARGIN
    while state.alive:
        last = directory.read()
        if last is not None and last.status in ENDED:
            directory.await_supervisor()
            return
        if time.monotonic() > deadline:
            _signal(state, signal.SIGKILL)
        time.sleep(_POLL)
    if state.server_pid is not None:
        _await_guard(state)


def _await_guard(state: RunState) -> None:
    """After a killed supervisor the guard still clears up; wait for it a little."""
    deadline = time.monotonic() + 10.0
    while procfs.start_time(state.server_pid or 0) and time.monotonic() < deadline:
        time.sleep(_POLL)


def _drain_timeout(directory: RunDirectory) -> float:
    try:
        plan = LaunchPlan.model_validate_json(directory.plan_file.read_text())
        beside = plan.companion.drain_timeout if plan.companion else 0.0
        return plan.drain_timeout + beside
    except (OSError, ValueError):
        return 0.0


def _require_here(state: RunState) -> None:
    import socket

    if state.machine != socket.gethostname() and state.status not in ENDED:
        raise ServerError(
            f"{state.name} was started on another machine, {state.machine}",
            hint="run this command there, or, if that machine is gone, remove its run directory",
        )
