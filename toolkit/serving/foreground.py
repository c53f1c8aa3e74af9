"""The supervisor in this very process, as containers and systemd want it."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from toolkit.errors import ServerError
from toolkit.serving.daemon import stop_on_signals
from toolkit.serving.deploy import running_already
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.state import ENDED, RunDirectory, RunState, write_private
from toolkit.serving.supervisor import Supervisor
from toolkit.workspace import root_option

_POLL = 0.05
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_foreground(
    plan: LaunchPlan,
    state_dir: Path,
    *,
    replace: bool = False,
    on_ready: Callable[[RunState], bool] | None = None,
    echo: Callable[[bytes], None] | None = None,
) -> RunState:
    """Supervise ``plan`` until SIGTERM, SIGINT or failure; returns the last state.

    Must be called from the main thread, whose signal handlers it sets meanwhile.

    Args:
        plan: What to run.
        state_dir: The workspace's root.
        replace: Stop another server of this name first; without it, refuse.
        on_ready: Called once, on another thread; the server is stopped if it returns False.
        echo: Receives the server's output; standard output by default.

    Raises:
        ServerError: a server of this name runs already.
    """
    directory = RunDirectory(state_dir, plan.name)
    with directory.lock("deploy", wait=True):
        state = running_already(directory, plan, replace=replace)
        if state is not None:
            at = root_option(directory.root)
            raise ServerError(
                f"{plan.name} is running already, in the background",
                where=f"{state.endpoints.http_url} (supervisor pid {state.supervisor_pid})",
                hint=f"toolkit logs -f {plan.name}{at} follows it; "
                f"toolkit stop {plan.name}{at} ends it",
            )
        write_private(directory.plan_file, plan.model_dump_json(indent=1))
        directory.state_file.unlink(missing_ok=True)
    supervisor = Supervisor(plan, directory, echo=echo or _to_stdout)
    before = {each: signal.getsignal(each) for each in _SIGNALS}
    stop_on_signals(supervisor)
    if on_ready is not None:
        threading.Thread(
            target=_when_ready, args=(directory, supervisor, on_ready), daemon=True
        ).start()
    try:
        return supervisor.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _when_ready(
    directory: RunDirectory, supervisor: Supervisor, action: Callable[[RunState], bool]
) -> None:
    while True:
        state = directory.read()
        if state is not None and state.status in ENDED:
            return
        if state is not None and state.status == "ready":
            break
        time.sleep(_POLL)
    if not action(state):
        supervisor.request_stop()


def _to_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
