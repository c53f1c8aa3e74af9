"""States of deployments as a supervisor would write them: this process is the supervisor."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from toolkit.serving import procfs
from toolkit.serving.state import Restart, RunDirectory, RunState, now


def state(name: str, **changes: object) -> RunState:
    settings: dict[str, object] = {
        "name": name,
        "status": "ready",
        "machine": socket.gethostname(),
        "supervisor_pid": os.getpid(),
        "supervisor_start": procfs.start_time(os.getpid()) or 0,
        "host": "0.0.0.0",
        "http_port": 8000,
        "grpc_port": 8001,
        "metrics_port": 8002,
        "companion_url": "https://127.0.0.1:9000",
        "repository": "r",
        "repository_digest": "d",
        "plan_fingerprint": "f",
        "launched_at": now(),
        "restarts": (Restart(at=now(), reason="it died"),),
    }
    return RunState.model_validate({**settings, **changes})


def write(root: Path, one: RunState) -> RunDirectory:
    directory = RunDirectory(root, one.name)
    directory.create()
    directory.write(one)
    return directory
