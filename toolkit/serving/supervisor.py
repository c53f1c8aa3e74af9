"""Owns a server's process from its start to its end, and writes down what happens.

Each life of the server goes: start, wait for readiness, watch, end. An ending that nobody asked
for is diagnosed from the log and followed by what :mod:`toolkit.serving.recovery` decides. A
server whose model process died is killed at once, so that requests in flight end with an error.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from toolkit.errors import ServerError
from toolkit.serving import diagnose, kv_scale, launch, probe, procfs, watched
from toolkit.serving.companion import Companion
from toolkit.serving.health import HealthPolicy, HealthWatch
from toolkit.serving.logs import RotatingLog
from toolkit.serving.ports import Endpoints, choose
from toolkit.serving.process import ServerProcess
from toolkit.serving.recovery import Decision, Ending, Recovery, RecoveryPolicy
from toolkit.serving.state import Failure, Restart, RunDirectory, RunState, now
from toolkit.spec.models import Ports
from toolkit.workspace import root_option

_TICK = 0.1
_AFTER_DRAIN = 10.0
_UNLOAD = 5.0
_UNLOADING = "All models are stopped, unloading models"
_LOG_LINES = 400
_LONGEST_LINE = 65_536
_KILL_SECONDS = 10.0
_TAIL = 25


@dataclass(frozen=True)
class Policy:
    """How the supervisor judges and revives its server."""

    health: HealthPolicy = field(default_factory=HealthPolicy)
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for the end
    """A stop was requested."""


class Supervisor:
    """Runs one server until it is stopped or cannot be kept up.

    Args:
        plan: What to run.
        directory: Where state, lock and log are.
        policy: Patience and limits.
        echo: Also receives the server's output (foreground).
    """

    def __init__(
        self,
        plan: launch.LaunchPlan,
        directory: RunDirectory,
        *,
        policy: Policy | None = None,
        echo: Callable[[bytes], None] | None = None,
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._policy = policy or Policy()
        self._echo = echo
        self._stops = 0
        self._wake_read, self._wake_write = os.pipe()
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._partial = b""
        self._hanging = threading.Event()
        self._kills = procfs.KernelKills()
        self._unsaved = False
        self._down_since: float | None = None
        self._companion = plan.companion and Companion(
            plan.companion, self._take_beside, lambda text: self._say(text)
        )
        ports = plan.ports
        self._recovery = Recovery(
            self._policy.recovery, any_port=0 in (ports.http, ports.grpc, ports.metrics)
        )

    def request_stop(self) -> None:
        """Drain and end; asked a second time, end at once. Safe in a signal handler."""
        self._stops += 1
        # A pipe, not a threading.Event: its lock could be held by the code the signal interrupted.
        os.write(self._wake_write, b"x")

    def run(self) -> RunState:
        """Run to the end and return the last state (``stopped`` or ``failed``).

        Raises:
            ServerError: another supervisor runs this deployment.
        """
        with self._directory.lock("supervisor", wait=False) as mine:
            if not mine:
                raise ServerError(
                    f"{self._plan.name} is already supervised",
                    where=str(self._directory.path),
                    hint=f"toolkit stop {self._plan.name}{root_option(self._directory.root)}",
                )
            self._log = RotatingLog(self._directory.log)
            self._state = self._first_state()
            self._repository = launch.mirror(
                self._plan.repository, self._directory.path / "repository"
            )
            try:
                return self._live()
            except ServerError as error:
                return self._fail(Failure(message=error.message, hint=error.hint))
            finally:
                if self._companion:
                    self._companion.stop(lambda: True)
                self._log.close()

    def _first_state(self) -> RunState:
        pid = os.getpid()
        prefix = f"toolkit_{self._plan.name}_{secrets.token_hex(4)}_"
        state = RunState(
            name=self._plan.name,
            status="starting",
            machine=socket.gethostname(),
            supervisor_pid=pid,
            supervisor_start=procfs.start_time(pid) or 0,
            shm_prefix=prefix,
            cleanup=tuple(launch.cleanup_command(self._plan, prefix)),
            host=self._plan.host,
            repository=str(self._plan.repository),
            repository_digest=self._plan.repository_digest,
            plan_fingerprint=self._plan.fingerprint,
            launched_at=now(),
        )
        self._directory.write(state)
        return state

    def _live(self) -> RunState:
        ports = self._plan.ports
        while True:
            try:
                endpoints = choose(self._plan.host, ports)
                ending = self._one_life(endpoints)
            except Stopped:
                self._say("stopped")
                self._update(status="stopped", detail="", server_pid=None)
                return self._state
            decision = self._recovery.decide(ending, time.monotonic())
            if decision.action == "give_up":
                return self._fail(self._failure(ending, decision))
            self._announce(ending, decision)
            if decision.action != "choose_ports":
                ports = Ports(http=endpoints.http, grpc=endpoints.grpc, metrics=endpoints.metrics)
            try:
                self._pause(decision.delay)
            except Stopped:
                self._update(status="stopped", detail="", server_pid=None)
                return self._state

    def _one_life(self, endpoints: Endpoints) -> Ending:
        """Start the server and stay until it ends; an end on request raises :class:`Stopped`."""
        self._forget_output()
        self._kills = procfs.KernelKills()
        process = self._spawn(endpoints)
        ready_at: float | None = None
        try:
            reason = self._until_ready(process, endpoints)
            if reason is None:
                self._accompany(endpoints)
                served_by = watched.server_pid(process.pid, self._plan, self._state.shm_prefix)
                ready_at = time.monotonic()
                self._now_ready(ready_at)
                reason = self._watch(process, served_by, endpoints)
            by_kernel = self._kills.recent(time.monotonic(), _KILL_SECONDS)
        finally:
            process.close()
        self._down_since = time.monotonic()
        served = None if ready_at is None else self._down_since - ready_at
        lines = list(self._lines)
        found = diagnose.diagnose(lines[-200:])
        if by_kernel:
            reason = f"{reason}; the kernel killed a process for memory right before"
        memory = by_kernel or (found is not None and found.kind == "memory")
        return Ending(reason, memory, found, served)

    def _spawn(self, endpoints: Endpoints) -> ServerProcess:
        kv_scale.scale_caches(self._plan.repository, self._repository, self._state.kv_cache_scale)
        plan, repository = launch.reachable(self._plan, self._repository)
        command = launch.command_line(
            plan,
            repository,
            endpoints,
            admin_key=self._directory.admin_key(),
            shm_prefix=self._state.shm_prefix,
        )
        env = launch.environment(
            self._plan,
            os.environ,
            kv_cache_scale=self._state.kv_cache_scale,
        )
        self._started = time.monotonic()
        process = ServerProcess(
            command,
            env,
            shm_prefix=self._state.shm_prefix,
            sink=self._take_output,
            cleanup=self._state.cleanup,
        )
        self._update(
            server_pid=process.pid,
            http_port=endpoints.http,
            grpc_port=endpoints.grpc,
            metrics_port=endpoints.metrics,
        )
        self._say(f"started pid {process.pid} on {endpoints.http_url}")
        return process

    def _until_ready(self, process: ServerProcess, endpoints: Endpoints) -> str | None:
        """None once ready, else why it will not be."""
        deadline = time.monotonic() + self._plan.ready_timeout
        models = watched.StartingModels(process.pid)
        while True:
            status = process.poll()
            if status is not None:
                return f"the server ended with {status} before it was ready"
            if models.lost(time.monotonic()):
                return "the process of a python model died before it was ready"
            if self._hanging.is_set():
                return "the server waits for something that will not come"
            if probe.ready(endpoints, self._plan.name, 2.0):
                return None
            if time.monotonic() > deadline:
                return f"the server was not ready within {self._plan.ready_timeout:g} s"
            self._pause(_TICK)

    def _watch(self, process: ServerProcess, served_by: int, endpoints: Endpoints) -> str:
        """Stay with a ready server until it ends or has to; returns why."""
        watch = HealthWatch(served_by, endpoints, self._policy.health)
        try:
            while True:
                status = process.poll()
                if status is not None:
                    return f"the server ended with {status}"
                problem = watch.problem()
                if problem is not None:
                    return self._reason(problem, process)
                if self._companion:
                    self._companion.tick()
                self._pause(_TICK)
        except Stopped:
            watch.close()
            self._drain(process)
            raise
        finally:
            watch.close()

    @staticmethod
    def _reason(problem: str, process: ServerProcess) -> str:
        """A server that died takes its models along: then its own end is the reason."""
        if procfs.start_time(process.pid) is None:
            status = process.wait(_AFTER_DRAIN)
            if status is not None:
                return f"the server ended with {status}"
        return problem

    def _drain(self, process: ServerProcess) -> None:
        """Triton stops accepting and lets requests finish; what is left at the end is killed."""
        self._say(f"draining for up to {self._plan.drain_timeout:g} s")
        self._update(status="draining", detail="")
        if self._companion:
            self._companion.stop(lambda: self._stops > 1)
        process.terminate()
        deadline = time.monotonic() + self._plan.drain_timeout + _AFTER_DRAIN
        unloading = False
        while process.wait(_TICK) is None:
            if not unloading and any(_UNLOADING in line for line in list(self._lines)[-20:]):
                # Every request has ended: a model that does not unload now only costs time.
                unloading, deadline = True, time.monotonic() + _UNLOAD
            if self._stops > 1 or time.monotonic() > deadline:
                what = "a model does not unload" if unloading else "requests did not end in time"
                self._say(f"{what}; killing the server")
                return

    def _accompany(self, endpoints: Endpoints) -> None:
        if self._companion:
            self._companion.start(endpoints, self._pause)
            self._update(companion_url=self._companion.url)

    def _now_ready(self, at: float) -> None:
        restarts = self._state.restarts
        if restarts and self._down_since is not None:
            downtime = round(at - self._down_since, 3)
            restarts = (*restarts[:-1], restarts[-1].model_copy(update={"downtime_s": downtime}))
        took = round(at - self._started, 3)
        self._update(
            status="ready", detail="", ready_at=now(), start_seconds=took, restarts=restarts
        )
        self._say(f"ready after {took:.1f} s")

    def _announce(self, ending: Ending, decision: Decision) -> None:
        detail = ending.reason
        if decision.kv_scale < self._state.kv_cache_scale:
            detail += f"; out of memory: restarting with {decision.kv_scale:.0%} of the KV cache"
        if decision.action == "choose_ports":
            detail += "; choosing other ports"
        self._say(f"{detail}; starting again in {decision.delay:g} s")
        if ending.diagnosis:
            self._say(f"diagnosis: {ending.diagnosis.message}; {ending.diagnosis.pattern.hint}")
        self._update(
            status="restarting",
            detail=detail,
            server_pid=None,
            kv_cache_scale=decision.kv_scale,
            restarts=(*self._state.restarts, Restart(at=now(), reason=detail)),
        )

    def _failure(self, ending: Ending, decision: Decision) -> Failure:
        found = ending.diagnosis
        log = f"toolkit logs {self._plan.name}{root_option(self._directory.root)}"
        return Failure(
            message=found.message if found else ending.reason,
            hint=found.pattern.hint if found else log,
            details=(
                f"{ending.reason}; {decision.why}",
                *list(self._lines)[-_TAIL:],
                f"full log: {self._directory.log}",
            ),
        )

    def _fail(self, failure: Failure) -> RunState:
        self._say(f"giving up: {failure.message}")
        self._update(status="failed", detail=failure.message, server_pid=None, failure=failure)
        return self._state

    def _pause(self, seconds: float) -> None:
        self._kills.sample(time.monotonic())
        if self._unsaved:
            self._save()
        if not self._stops:
            select.select([self._wake_read], [], [], seconds)
        if self._stops:
            raise Stopped

    def _update(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)
        self._save()

    def _save(self) -> None:
        """Write the state; with a full disk as soon as that can be done, the server goes on."""
        try:
            self._directory.write(self._state)
        except OSError as error:
            if not self._unsaved:
                self._say(f"the state cannot be written: {error.strerror}")
            self._unsaved = True
        else:
            self._unsaved = False

    def _say(self, message: str) -> None:
        self._log.say(message)
        self._show(f"toolkit: {message}\n".encode())

    def _show(self, data: bytes) -> None:
        try:
            if self._echo:
                self._echo(data)
        except OSError:  # a terminal or a reader that has gone; the log has it all
            self._echo = None

    def _forget_output(self) -> None:
        self._lines.clear()
        self._partial = b""
        self._hanging.clear()

    def _take_beside(self, data: bytes) -> None:
        """The companion's output: clients have a say in it, so nothing is concluded from it."""
        self._log.write(data)
        self._show(data)

    def _take_output(self, data: bytes) -> None:
        self._log.write(data)
        self._show(data)
        *whole, rest = (self._partial + data).split(b"\n")
        self._partial = rest[-_LONGEST_LINE:]  # a bar that is redrawn for ever has no line end
        for line in whole:
            self._lines.append(line.decode(errors="replace"))
            if diagnose.hangs(line):
                self._hanging.set()
