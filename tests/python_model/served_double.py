"""A rendered repository with the test engine, on a real Triton."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from miniature import write_engine

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Triton:
    """A running server; ``process`` is tritonserver itself."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    metrics: str
    log: Path

    def ready(self, model: str) -> bool:
        try:
            with urllib.request.urlopen(
                f"{self.http}/v2/models/{model}/ready", timeout=5
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def start_triton(repository: Path, model: str, log: Path) -> Triton:
    from toolkit.progress import Silent
    from toolkit.serving import install, launch, ports
    from toolkit.spec.models import Ports

    server = install.install_server(Silent())
    plan = launch.LaunchPlan(
        name=model,
        repository=repository,
        repository_digest="",
        executable=server.executable,
        backends=server.backends,
        host="127.0.0.1",
        ports=Ports(http=0, grpc=0, metrics=0),
        ready_timeout=60,
        drain_timeout=5,
        max_batch_size=64,
    )
    endpoints = ports.choose("127.0.0.1", plan.ports)
    command = launch.command_line(
        plan, repository, endpoints, admin_key="test", shm_prefix=f"test{endpoints.http}_"
    )
    environment = launch.environment(plan, {"PATH": "/usr/bin:/bin"}, kv_cache_scale=1)
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    triton = Triton(process, endpoints.http_url, endpoints.grpc_url, endpoints.metrics_url, log)
    deadline = time.monotonic() + 60
    while not triton.ready(model):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(log.read_text())
        time.sleep(0.1)
    return triton


def stop_triton(triton: Triton) -> None:
    triton.process.terminate()
    try:
        triton.process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        triton.process.kill()
        triton.process.wait()


def render_double(folder: Path, checkpoint: Path, **engine_settings: object) -> Path:
    """A repository named ``chat`` whose engine is the test's."""
    from toolkit.repository.render import render
    from toolkit.spec.models import Deployment

    deployment = Deployment.model_validate(
        {
            "name": "chat",
            "model": {"source": "test"},
            "engine": {
                "limits": {"max_batch_size": 32, "max_input_len": 512, "max_seq_len": 4096},
                "batching": {"max_queue_size": 4},
            },
        }
    )
    repository = folder / "repository"
    render(deployment, write_engine(folder / "engine"), checkpoint, repository)
    version = repository / "chat/1"
    shutil.copy(HERE / "double/adapter.py", version / "adapter.py")
    settings = json.loads((version / "settings.json").read_text())
    settings["engine"].update(engine_settings)
    (version / "settings.json").write_text(json.dumps(settings))
    return repository
