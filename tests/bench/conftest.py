"""A real Triton that serves the counting model, and targets to try."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from toolkit.serving.deploy import RunningServer

MODELS = Path(__file__).parent / "triton_models"
NAME = "echo-chat"


@pytest.fixture(scope="session")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Triton with ``echo`` and the ensemble ``echo-chat`` over it, a token every 2 ms."""
    from toolkit.progress import Silent
    from toolkit.serving import deploy, install
    from toolkit.serving.launch import LaunchPlan
    from toolkit.spec.models import Ports

    binary = install.install_server(Silent())
    plan = LaunchPlan(
        name=NAME,
        repository=MODELS,
        repository_digest=deploy.repository_digest(MODELS),
        executable=binary.executable,
        backends=binary.backends,
        host="127.0.0.1",
        ports=Ports(http=0, grpc=0, metrics=0),
        ready_timeout=120,
        drain_timeout=10,
        max_batch_size=64,
        environment={"BENCH_ECHO_TICK_MS": "2"},
    )
    state = tmp_path_factory.mktemp("echo")
    with deploy.start(plan, state, progress=Silent(), tied=True) as server:
        yield server


@pytest.fixture
def unused_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
