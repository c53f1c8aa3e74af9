"""The supervisor as a process of its own: ``python -m toolkit.serving.daemon STATE_DIR NAME``.

With ``--owner FD`` it stops as soon as that descriptor is closed at its other end, so that a
server started by a test or a script does not outlive it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from toolkit.serving.launch import LaunchPlan
from toolkit.serving.state import RunDirectory
from toolkit.serving.supervisor import Supervisor


def main(arguments: list[str]) -> int:
    """Supervise the plan of one run directory; 0 after a stop, 6 when the server failed."""
    parser = argparse.ArgumentParser(prog="toolkit.serving.daemon")
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("name")
    parser.add_argument("--owner", type=int)
    options = parser.parse_args(arguments)
    directory = RunDirectory(options.state_dir, options.name)
    plan = LaunchPlan.model_validate_json(directory.plan_file.read_text())
    supervisor = Supervisor(plan, directory)
    stop_on_signals(supervisor)
    if options.owner is not None:
        threading.Thread(
            target=_stop_without, args=(options.owner, supervisor), daemon=True
        ).start()
    return 0 if supervisor.run().status == "stopped" else 6


def stop_on_signals(supervisor: Supervisor) -> None:
    """SIGTERM and SIGINT drain; a second one ends at once. SIGHUP: the terminal may go."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: supervisor.request_stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _stop_without(owner: int, supervisor: Supervisor) -> None:
    while os.read(owner, 1):
        pass
    supervisor.request_stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
