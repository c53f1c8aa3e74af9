"""What stands in the way of a deployment and can be told before anything is built for it."""

from __future__ import annotations

from pathlib import Path

from toolkit.serving import ports
from toolkit.serving.state import RunDirectory
from toolkit.spec.models import Deployment


def check_ports(deployment: Deployment, state_dir: Path) -> None:
    """Refuse ports that are taken before anything is built; a deployment that runs has its own.

    Raises:
        ServerError: one is, or the host is not an address of this machine.
    """
    state = RunDirectory(state_dir, deployment.name).read()
    if state is not None and state.runs:
        return
    serving, gateway = deployment.serving, deployment.gateway
    ports.choose(serving.host, serving.ports)
    if gateway.enabled:
        ports.choose_one(gateway.host, gateway.port, "gateway.port")
