"""A process that lives beside the server: started when it is ready, ended before it.

It goes on while the server restarts, and is itself started again, with growing pauses, when it
ends by itself or answers no more. The guard ends it with its supervisor, whatever becomes of that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from toolkit.errors import ServerError
from toolkit.serving import ports, procfs
from toolkit.serving.ports import Endpoints
from toolkit.serving.process import ServerProcess
from toolkit.serving.pulse import Pulse
from toolkit.serving.state import write_private

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_LASTING = 60.0
_POLL = 0.05
_KILL_AFTER = 5.0


class CompanionPlan(BaseModel):
    """What to start: ``command`` gets the server's addresses and its own port appended.

    Attributes:
        file: Written with ``content`` before each start: the command reads it.
        field: Where its port is set in the deployment file, for errors.
        port: 0 picks a free one, once for all its lives.
        ready_timeout: Seconds within which it has to listen.
        drain_timeout: Seconds that its requests have when it is told to end.
        health: Path that it answers as long as it is alive; empty: it is not asked.
        patience: Seconds without an answer after which it is killed and started again; as many as
            it may drain, if that is more.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    command: tuple[str, ...]
    file: Path | None = None
    content: str = ""
    host: str
    port: int
    field: str
    scheme: str = "http"
    ready_timeout: float = 30.0
    drain_timeout: float = 30.0
    health: str = ""
    patience: float = 60.0


class Companion:
    """Owns the process. Used by one thread.

    Args:
        plan: What to run.
        sink: Receives its output.
        say: Told in one line what happens.
    """

    def __init__(
        self, plan: CompanionPlan, sink: Callable[[bytes], None], say: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.port = 0
        self._sink = sink
        self._say = say
        self._process: ServerProcess | None = None
        self._pulse: Pulse | None = None
        self._beside: Endpoints | None = None
        self._pause = _FIRST_PAUSE
        self._started = 0.0
        self._again_at = 0.0

    @property
    def url(self) -> str:
        """Where clients on this machine reach it."""
        host = _reachable(self.plan.host)
        return f"{self.plan.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def start(self, endpoints: Endpoints, pause: Callable[[float], None] = time.sleep) -> None:
        """Start it beside the server at ``endpoints`` and wait until it listens.

        One that runs already beside the same addresses is left alone. ``pause`` waits so many
        seconds between two looks; what it raises ends the wait.

        Raises:
            ServerError: its port is taken, or it ended or did not listen in time.
        """
        if self._process is not None and self._beside == endpoints:
            return
        self.stop()
        if not self.port:
            self.port = ports.choose_one(self.plan.host, self.plan.port, self.plan.field)
        self._beside = endpoints
        self._spawn(endpoints)
        deadline = time.monotonic() + self.plan.ready_timeout
        assert self._process is not None
        # Whoever else listens there is not it: it may have lost the port, and be about to end.
        while not procfs.listens(self._process.pid, self.port):
            status = self._process.poll()
            if status is not None or time.monotonic() > deadline:
                self.stop()
                what = f"ended with {status}" if status else "did not listen in time"
                raise ServerError(
                    f"the {self.plan.name} {what}", hint="its output is at the end of the log"
                )
            pause(_POLL)

    def tick(self) -> None:
        """Start it again if it has ended and its pause is over.

        What keeps it from starting is said and tried again: the server does not depend on it.
        """
        if self._process is None or self._beside is None:
            return
        now = time.monotonic()
        status = self._process.poll()
        if status is None:
            if self._pulse is not None and self._pulse.silent:
                self._say(f"the {self.plan.name} does not answer, pid {self._process.pid}: killed")
                self._process.kill()
                self._listen_to_none()
            return
        if not self._again_at:
            if now - self._started > _LASTING:
                self._pause = _FIRST_PAUSE
            self._later(f"ended with {status}", now)
        elif now >= self._again_at:
            self._process.close()
            try:
                self._spawn(self._beside)
            except ServerError as error:
                self._later(f"did not start: {error.message}", now)

    def _later(self, what: str, now: float) -> None:
        self._say(f"the {self.plan.name} {what}; again in {self._pause:g} s")
        self._again_at = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Let it drain, then end it; at once when ``hurry`` becomes true."""
        if self._process is None:
            return
        self._listen_to_none()
        if self._process.poll() is None:
            self._process.terminate()
            deadline = time.monotonic() + self.plan.drain_timeout + _KILL_AFTER
            while self._process.poll() is None and time.monotonic() < deadline and not hurry():
                time.sleep(_POLL)
        self._process.close()
        self._process = None

    def _spawn(self, endpoints: Endpoints) -> None:
        """Raises ServerError: the machine does not let us."""
        address = f"{endpoints.grpc_url}/{endpoints.metrics}"
        self._started, self._again_at = time.monotonic(), 0.0
        self._listen_to_none()
        try:
            if self.plan.file is not None:
                write_private(self.plan.file, self.plan.content)
            self._process = ServerProcess(
                (*self.plan.command, "--port", str(self.port), "--replica", address),
                os.environ,
                shm_prefix="",
                sink=self._sink,
            )
        except OSError as error:
            raise ServerError(f"the {self.plan.name} cannot be started: {error}") from error
        if self.plan.health:
            # Somebody else may have told it to end: one that drains takes no more questions.
            patience = max(self.plan.patience, self.plan.drain_timeout + _KILL_AFTER)
            self._pulse = Pulse(self.url + self.plan.health, patience)
        self._say(f"started the {self.plan.name}, pid {self._process.pid}, on port {self.port}")

    def _listen_to_none(self) -> None:
        if self._pulse is not None:
            self._pulse.end()
            self._pulse = None


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
