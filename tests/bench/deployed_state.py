"""The state of a deployment whose supervisor is this very process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from toolkit.serving import procfs
from toolkit.serving.state import RunDirectory, RunState, now


def deployed(root: Path, name: str, *, host: str = "127.0.0.1", grpc: int = 8001) -> RunState:
    """Write the state of ``name`` as ready below the workspace ``root``."""
    directory = RunDirectory(root, name)
    directory.create()
    state = RunState(
        name=name,
        status="ready",
        machine=socket.gethostname(),
        supervisor_pid=os.getpid(),
        supervisor_start=procfs.start_time(os.getpid()) or 0,
        host=host,
        http_port=8000,
        grpc_port=grpc,
        metrics_port=8002,
        repository=str(root / "repository"),
        repository_digest="served",
        plan_fingerprint="f",
        launched_at=now(),
    )
    directory.write(state)
    return state
