"""The command line and environment of the server, ports, and the choice of a launcher."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.errors import ServerError
from toolkit.serving import install, launch, launcher, ports
from toolkit.serving.container import ContainerLauncher
from toolkit.serving.ports import Endpoints
from toolkit.spec.models import Deployment, Engine, Limits, ModelSource, Ports, Serving

BINARY = install.ServerBinary(Path("/opt/x/bin/tritonserver"), Path("/opt/x/backends"), "path")


def deployment(**serving: object) -> Deployment:
    return Deployment(
        name="chat",
        model=ModelSource(source="./m"),
        engine=Engine(threads=3, limits=Limits(max_batch_size=32)),
        serving=Serving.model_validate(serving),
    )


def plan(uses_gpu: bool = False, **serving: object) -> launch.LaunchPlan:
    return launch.plan(deployment(**serving), Path("/r"), "d", BINARY, uses_gpu=uses_gpu)


def command(made: launch.LaunchPlan) -> list[str]:
    ends = Endpoints(made.host, 8000, 8001, 8002)
    return launch.command_line(made, Path("/m"), ends, admin_key="k3y", shm_prefix="p_")


def test_every_service_is_bound_to_the_host() -> None:
    assert {
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
    } <= set(command(plan()))
    assert "--http-address=0.0.0.0" in command(plan(host="0.0.0.0"))


def test_admin_endpoints_are_restricted_and_models_fixed() -> None:
    words = command(plan())
    apis = "model-repository,trace,logging,shared-memory:toolkit-admin-key=k3y"
    assert f"--http-restricted-api={apis}" in words
    assert f"--grpc-restricted-protocol={apis}" in words
    assert "--model-control-mode=none" in words


def test_drain_timeout_is_rounded_up_for_triton() -> None:
    assert "--exit-timeout-secs=2" in command(plan(drain_timeout=1.2))
    assert "--exit-timeout-secs=1" in command(plan(drain_timeout=0))


@pytest.mark.e2e
def test_server_knows_every_flag(triton: install.ServerBinary) -> None:
    import subprocess

    told = subprocess.run([triton.executable, "--help"], capture_output=True, text=True)
    known = {line.split()[0] for line in told.stderr.splitlines() if line.startswith("  --")}
    assert {word.partition("=")[0] for word in command(plan())[1:]} <= known


def test_environment_has_no_secret_and_no_python_path() -> None:
    base = {"HF_TOKEN": "s", "HUGGING_FACE_HUB_TOKEN": "s", "PYTHONPATH": "/x", "HOME": "/h"}
    env = launch.environment(plan(), base, kv_cache_scale=0.7)
    assert "s" not in env.values()
    assert "PYTHONPATH" not in env
    assert env["HOME"] == "/h"
    assert env["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert env["TOOLKIT_KV_CACHE_SCALE"] == "0.7"
    assert env["OMP_NUM_THREADS"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in env


def test_gpu_plan_shows_the_chosen_gpus() -> None:
    made = plan(uses_gpu=True, gpus=(1, 3))
    assert launch.environment(made, {}, kv_cache_scale=1)["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert not any(word.startswith("--allow-gpu-metrics") for word in command(made))


def test_fingerprint_follows_settings() -> None:
    assert plan().fingerprint == plan().fingerprint
    assert plan().fingerprint != plan(drain_timeout=5).fingerprint


def test_mirror_keeps_the_original_untouched(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "m/1/__pycache__").mkdir(parents=True)
    (source / "m/1/model.py").write_text("x = 1")
    (source / "m/1/weights.bin").write_bytes(b"0" * (2**20 + 1))
    (source / "m/1/__pycache__/model.pyc").write_bytes(b"")
    (source / "e/1").mkdir(parents=True)
    (source / "linked").symlink_to(source / "m")
    made = launch.mirror(source, tmp_path / "mirror")
    assert (made / "m/1/model.py").read_text() == "x = 1"
    assert not (made / "m/1/model.py").is_symlink()
    assert (made / "m/1/weights.bin").is_symlink()
    assert (made / "m/1/weights.bin").stat().st_size == 2**20 + 1
    assert (made / "e/1").is_dir()
    assert (made / "linked").resolve() == source / "m"
    assert not list(made.glob("m/1/__pycache__"))
    (made / "stale").touch()
    assert not (launch.mirror(source, tmp_path / "mirror") / "stale").exists()


def test_free_ports_are_distinct_and_fixed_ones_are_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    chosen = ports.choose("127.0.0.1", Ports(http=0, grpc=free, metrics=0))
    assert chosen.grpc == free
    assert len({chosen.http, chosen.grpc, chosen.metrics}) == 3


def test_taken_port_is_named_with_its_field() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is already in use") as caught:
            ports.choose("127.0.0.1", Ports(http=0, grpc=0, metrics=port))
    assert caught.value.where == "serving.ports.metrics"


def test_port_of_another_deployment_is_told_how_to_be_freed() -> None:
    code = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, ports.DAEMON, "/my ws", "chat"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with pytest.raises(ServerError, match="deployment chat") as caught:
            ports.choose("127.0.0.1", Ports(http=port, grpc=0, metrics=0))
        process.kill()
    assert "toolkit stop chat --workspace '/my ws'" in str(caught.value.hint)


def test_foreign_address_is_refused() -> None:
    with pytest.raises(ServerError) as caught:
        ports.choose("192.0.2.1", Ports(http=0, grpc=0, metrics=0))
    assert caught.value.where == "serving.host"


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]")],
)
def test_urls_are_reachable_from_here(host: str, url: str) -> None:
    ends = Endpoints(host, 1, 2, 3)
    assert ends.http_url == f"http://{url}:1"
    assert ends.grpc_url == f"{url}:2"
    assert ends.metrics_url == f"http://{url}:3/metrics"


def test_launcher_for_each_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert isinstance(launcher.choose(deployment(), "openvino"), launcher.BinaryLauncher)
    wanted = deployment(launcher="container")
    assert isinstance(launcher.choose(wanted, "openvino"), ContainerLauncher)
    monkeypatch.setattr(install, "find_server", lambda: None)
    assert isinstance(launcher.choose(deployment(), "tensorrt"), ContainerLauncher)
    (tmp_path / "tensorrtllm").mkdir()
    ngc = install.ServerBinary(Path("/opt/tritonserver/bin/tritonserver"), tmp_path, "container")
    monkeypatch.setattr(install, "find_server", lambda: ngc)
    assert isinstance(launcher.choose(deployment(), "tensorrt"), launcher.BinaryLauncher)
    assert isinstance(launcher.choose(deployment(), "pytorch"), ContainerLauncher)
