"""Which process has the python models below it: the server may be behind mpirun or a container."""

from __future__ import annotations

import subprocess

from toolkit.serving import container_run, procfs
from toolkit.serving.health import STUB_NAME
from toolkit.serving.launch import LaunchPlan

_ANSWER_SECONDS = 10.0
_GRACE = 5.0


class StartingModels:
    """Notices a model process that dies while its server starts: Triton waits for it for minutes.

    Args:
        started: The process that the guard started; behind a container nothing is noticed.
    """

    def __init__(self, started: int) -> None:
        self._started = started
        self._seen: dict[int, int] = {}
        self._since: float | None = None

    def lost(self, at: float) -> bool:
        """Whether one has been dead for a while; ``at`` is monotonic.

        A model that refuses to load ends its process too: then the server is given the time to
        say why and to end by itself.
        """
        self._seen |= procfs.children(self._started, STUB_NAME)
        dead = [pid for pid, start in self._seen.items() if procfs.start_time(pid) != start]
        if not dead:
            return False
        self._since = self._since or at
        return at - self._since >= _GRACE


def server_pid(started: int, plan: LaunchPlan, shm_prefix: str) -> int:
    """The parent of the model processes.

    Args:
        started: The process that the guard started: the server, mpirun, or a container's client.
        plan: What was started.
        shm_prefix: Names the container.

    Returns ``started`` where no model process is found below it, for example because the
    container runs in a virtual machine; the server is then judged by its answers alone.
    """
    root = started
    if plan.container is not None:
        root = container_pid(plan.container, container_run.container_name(shm_prefix)) or started
    level = [root]
    while level:
        for pid in level:
            if procfs.children(pid, STUB_NAME):
                return pid
        level = [child for pid in level for child in procfs.children(pid)]
    return started


def container_pid(container: container_run.Container, name: str) -> int | None:
    """The container's first process in this machine's numbers; None where it does not tell."""
    command = [str(container.program), "inspect", "--format", "{{.State.Pid}}", name]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS
        )
        return int(answer.stdout) or None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
