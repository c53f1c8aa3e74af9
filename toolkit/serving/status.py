"""What runs, how it is, and what it is doing: the state files joined with live metrics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from toolkit.errors import ServerError, SpecError
from toolkit.serving import probe
from toolkit.serving.metrics import Load
from toolkit.serving.state import ENDED, RunDirectory, RunState, run_directories

_TIMEOUT = 2.0


@dataclass(frozen=True)
class ServerStatus:
    """One deployment's server. ``status`` is ``dead`` when its supervisor vanished."""

    state: RunState
    status: str
    uptime_s: float | None
    load: Load | None
    log: Path

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        ends = self.state.endpoints
        return {
            "name": self.state.name,
            "status": self.status,
            "detail": self.state.detail,
            "uptime_s": self.uptime_s,
            "pid": self.state.server_pid,
            "supervisor_pid": self.state.supervisor_pid,
            "http": ends.http_url,
            "grpc": ends.grpc_url,
            "metrics": ends.metrics_url,
            "gateway": self.state.companion_url or None,
            "load": None if self.load is None else vars(self.load),
            "kv_cache_scale": self.state.kv_cache_scale,
            "restarts": [each.model_dump() for each in self.state.restarts],
            "failure": self.state.failure and self.state.failure.model_dump(),
            "repository": self.state.repository,
            "repository_digest": self.state.repository_digest,
            "log": str(self.log),
        }


def read_status(directory: RunDirectory) -> ServerStatus | None:
    """The status of one deployment; None when it was never deployed. Asks the live server."""
    state = directory.read()
    if state is None:
        return None
    status: str = state.status
    if status not in ENDED and not state.alive:
        directory.clear_stale(state)
        status = "dead"
    load = uptime = None
    if status == "ready":
        found = probe.scrape(state.endpoints, _TIMEOUT)
        load = Load.of(found) if found else None
        if state.ready_at:
            since = datetime.fromisoformat(state.ready_at)
            uptime = (datetime.now(timezone.utc) - since).total_seconds()
    return ServerStatus(state, status, uptime, load, directory.log)


def all_status(state_dir: Path) -> list[ServerStatus]:
    """The status of every deployment that has a state under ``state_dir``."""
    found = (read_status(directory) for directory in run_directories(state_dir))
    return [status for status in found if status is not None]


def find(state_dir: Path, name: str | None) -> RunDirectory:
    """The run directory of ``name``; without a name, of the only deployment there is.

    Raises:
        ServerError: there is none.
        SpecError: there are several and no name says which.
    """
    known = run_directories(state_dir)
    names = ", ".join(each.name for each in known) or "none"
    if name is None and known:
        running = [each for each in known if (state := each.read()) and state.runs]
        chosen = running if len(running) == 1 else known
        if len(chosen) == 1:
            return chosen[0]
        raise SpecError(
            "several deployments: say which",
            where=str(state_dir),
            hint=f"deployments here: {names}; --workspace DIR looks elsewhere",
        )
    for each in known:
        if each.name == name:
            return each
    raise ServerError(
        f"{name} is not deployed" if name else "nothing is deployed",
        where=str(state_dir),
        hint=f"toolkit deploy FILE; deployments here: {names}; --workspace DIR looks elsewhere",
    )
