"""Is a ready server still alive and working? Asked on every tick of the supervisor.

Triton stays "ready" when the process of a python model has died: requests in flight hang for
ever and new ones are refused (observed on 2.51). So the model processes are watched themselves.
Beside them: whether the server answers, and whether the engine still steps while it has work.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from toolkit.serving import probe, procfs
from toolkit.serving.metrics import Load
from toolkit.serving.ports import Endpoints

STUB_NAME = "triton_python_b"
"""Command name of model processes, which the kernel cuts at 15 characters."""


@dataclass(frozen=True)
class HealthPolicy:
    """How patiently a server is judged; seconds.

    ``stall_timeout`` is how long the engine may run requests without finishing one step.
    """

    probe_interval: float = 5.0
    probe_timeout: float = 10.0
    probe_failures: int = 6
    stall_timeout: float = 120.0


class HealthWatch:
    """Watches one life of a server that is ready. Probes run on a thread of their own.

    Args:
        server_pid: The server, parent of the model processes.
        endpoints: Where it listens.
        policy: When to give up on it.
    """

    def __init__(self, server_pid: int, endpoints: Endpoints, policy: HealthPolicy) -> None:
        self._stubs = procfs.children(server_pid, STUB_NAME)
        self._endpoints = endpoints
        self._policy = policy
        self._problem: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._probe, name="health", daemon=True)
        self._thread.start()

    @property
    def stubs(self) -> tuple[int, ...]:
        """Process ids of the model processes."""
        return tuple(self._stubs)

    def problem(self) -> str | None:
        """Why the server has to be restarted; None while it is well."""
        for pid, start in self._stubs.items():
            if procfs.start_time(pid) != start:
                return f"the process of a python model died (pid {pid})"
        return self._problem

    def close(self) -> None:
        """Stop probing; a probe under way ends by itself."""
        self._stop.set()

    def _probe(self) -> None:
        failures = 0
        stall = StallDetector(self._policy.stall_timeout)
        while not self._stop.wait(self._policy.probe_interval):
            if probe.live(self._endpoints, self._policy.probe_timeout):
                failures = 0
            else:
                failures += 1
            if failures >= self._policy.probe_failures:
                self._problem = f"the server did not answer {failures} times in a row"
            metrics = probe.scrape(self._endpoints, self._policy.probe_timeout)
            if metrics and stall.stalled(Load.of(metrics), time.monotonic()):
                self._problem = (
                    f"the engine has made no step for {self._policy.stall_timeout:.0f} s although "
                    "requests are running"
                )


class StallDetector:
    """Tells an engine that hangs from one that is idle, by its step counter."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._last: float | None = None
        self._since: float | None = None

    def stalled(self, load: Load, at: float) -> bool:
        """Whether requests have run without a step for the timeout; ``at`` is monotonic."""
        if load.iterations is None or not load.running or load.iterations != self._last:
            self._last = load.iterations
            self._since = at
            return False
        return self._since is not None and at - self._since >= self._timeout
