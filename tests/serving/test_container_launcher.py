"""Deploying into a container, against a docker whose containers are real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from container_double import IMAGE, FakeDocker, fake_docker

from toolkit.errors import EnvironmentError_, ServerError, UnsupportedError
from toolkit.progress import Silent
from toolkit.serving import deploy, install, probe, procfs, status
from toolkit.serving.container import ContainerLauncher
from toolkit.serving.deploy import RunningServer
from toolkit.serving.health import STUB_NAME
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.state import RunDirectory, RunState
from toolkit.spec.models import Deployment

Plan = Callable[..., LaunchPlan]


@pytest.fixture
def docker(
    tmp_path: Path, triton: install.ServerBinary, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeDocker]:
    with fake_docker(tmp_path / "docker", triton) as daemon:
        monkeypatch.setenv("PATH", f"{daemon.directory}:{os.environ['PATH']}")
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.delenv("TOOLKIT_CONTAINER_ENGINE", raising=False)
        yield daemon


@pytest.fixture
def contained(
    docker: FakeDocker, make_plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Plan:
    """Plans of the words model in a container, as the launcher makes them."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))

    def make(runtime: str = "openvino", **serving: object) -> LaunchPlan:
        return ContainerLauncher(runtime).prepare(  # type: ignore[arg-type]
            deployment(**serving),
            make_plan().repository,
            "digest",
            environment={"WORDS_TOLD": "a secret word"},
            progress=Silent(),
        )

    return make


def deployment(**serving: object) -> Deployment:
    fields = {
        "launcher": "container",
        "image": IMAGE,
        "ports": {"http": 0, "grpc": 0, "metrics": 0},
        "drain_timeout": 5,
        "ready_timeout": 60,
        **serving,
    }
    return Deployment.model_validate(
        {"name": "words", "model": {"source": "./m"}, "serving": fields}
    )


@pytest.fixture
def server(contained: Plan, state_dir: Path) -> Iterator[RunningServer]:
    with deploy.start(contained(), state_dir, progress=Silent(), tied=True) as running:
        yield running


def wait_for(what: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def directory_of(server: RunningServer, state_dir: Path) -> RunDirectory:
    return RunDirectory(state_dir, server.name)


@pytest.mark.e2e
def test_deployed_server_answers_logs_and_stops(
    server: RunningServer, docker: FakeDocker, state_dir: Path
) -> None:
    body = {"text_input": "The capital of France is", "max_tokens": 2}
    url = f"{server.http_url}/v2/models/words/generate"
    assert probe.post(url, body, 10)[0] == 200
    assert "Started HTTPService" in server.log.read_text()
    (name,) = docker.containers
    server.stop()
    assert docker.containers == {}
    assert "draining" in server.log.read_text()
    assert ["rm", "--force", "--volumes", name] in docker.asked
    state = directory_of(server, state_dir).read()
    assert state is not None
    assert state.status == "stopped"
    assert probe.get(f"{server.http_url}/v2/health/live", 2)[0] == 0


@pytest.mark.e2e
def test_container_has_only_what_it_needs(
    server: RunningServer, docker: FakeDocker, state_dir: Path, make_plan: Plan
) -> None:
    (run,) = docker.runs
    assert run.image == docker.images[IMAGE]
    assert run.all("--cap-drop") == ["ALL"]
    assert run.all("--security-opt") == ["no-new-privileges"]
    assert run.all("--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert run.all("--pull") == ["never"]
    assert run.all("--restart") == ["no"]
    assert run.all("--gpus") == []
    assert {value.split(":")[0] for value in run.all("--publish")} == {"127.0.0.1"}
    writable = [mount["target"] for mount in run.mounts if "readonly" not in mount]
    assert writable == ["/cache"]
    sources = {Path(mount["source"]) for mount in run.mounts if "readonly" in mount}
    assert sources == {state_dir / "run/words/repository", make_plan().repository}
    # The value travels in the client's environment, where no process list shows it.
    assert not any("a secret word" in word for words in docker.asked for word in words)
    assert docker.environments[0]["WORDS_TOLD"] == "a secret word"


def container_pid(docker: FakeDocker) -> int:
    (process,) = docker.containers.values()
    return process.pid


@pytest.mark.e2e
def test_killed_client_leaves_no_second_container(
    server: RunningServer, docker: FakeDocker
) -> None:
    (first,) = docker.containers.values()
    client = server.state().server_pid
    assert client is not None
    os.kill(client, signal.SIGKILL)
    wait_for(lambda: len(docker.runs) == 2 and server.state().status == "ready")
    assert first.poll() is not None
    assert len(docker.containers) == 1


@pytest.mark.e2e
def test_dead_model_process_inside_is_noticed(server: RunningServer, docker: FakeDocker) -> None:
    (stub,) = procfs.children(container_pid(docker), STUB_NAME)
    time.sleep(0.5)  # ready is told a moment before the watch begins
    os.kill(stub, signal.SIGKILL)
    wait_for(lambda: len(docker.runs) == 2 and server.state().status == "ready")
    (restart,) = server.state().restarts
    assert "python model died" in restart.reason


@pytest.mark.e2e
def test_container_of_a_dead_supervisor_and_guard_is_cleared_by_whoever_looks(
    contained: Plan, docker: FakeDocker, state_dir: Path
) -> None:
    server = deploy.start(contained(), state_dir, progress=Silent())
    state = server.state()
    assert state.server_pid is not None
    guard = parent(state.server_pid)
    os.kill(state.supervisor_pid, signal.SIGSTOP)
    os.kill(guard, signal.SIGKILL)
    os.kill(state.supervisor_pid, signal.SIGKILL)
    wait_for(lambda: not server.state().alive)
    assert len(docker.containers) == 1
    found = status.read_status(directory_of(server, state_dir))
    assert found is not None
    assert found.status == "dead"
    assert docker.containers == {}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.e2e
def test_image_that_vanished_fails_with_dockers_words(
    contained: Plan, docker: FakeDocker, state_dir: Path
) -> None:
    plan = contained()
    docker.images.clear()
    with pytest.raises(ServerError) as caught:
        deploy.start(plan, state_dir, progress=Silent())
    assert any("No such image" in line for line in caught.value.details)


def test_missing_image_is_pulled_once(contained: Plan, docker: FakeDocker) -> None:
    docker.registry = dict(docker.images)
    docker.images = {}
    plan = contained()
    assert plan.container is not None
    assert plan.container.image_id == docker.registry[IMAGE]
    assert [words[0] for words in docker.asked].count("pull") == 1
    contained()
    assert [words[0] for words in docker.asked].count("pull") == 1


def test_image_that_cannot_be_pulled(contained: Plan, docker: FakeDocker) -> None:
    docker.images = {}
    with pytest.raises(EnvironmentError_, match="cannot pull") as caught:
        contained()
    assert "manifest unknown" in caught.value.details


def test_offline_pulls_nothing(docker: FakeDocker, make_plan: Plan) -> None:
    docker.images, docker.registry = {}, dict(docker.images)
    with pytest.raises(EnvironmentError_, match="--offline"):
        ContainerLauncher("openvino", offline=True).prepare(
            deployment(), make_plan().repository, "d", environment={}, progress=Silent()
        )
    assert not any(words[0] == "pull" for words in docker.asked)


def test_image_with_another_release_is_refused(contained: Plan, docker: FakeDocker) -> None:
    docker.inside = "0.9.0"
    with pytest.raises(UnsupportedError, match=r"holds TensorRT-LLM 0\.9\.0") as caught:
        contained("pytorch")
    assert caught.value.where == IMAGE


def test_image_that_does_not_tell_its_release_is_taken(contained: Plan, docker: FakeDocker) -> None:
    docker.inside = None
    assert contained("pytorch", gpus=[2]).container is not None


def test_no_container_engine(
    make_plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentError_, match="no container engine") as caught:
        ContainerLauncher("openvino").prepare(
            deployment(), make_plan().repository, "d", environment={}, progress=Silent()
        )
    assert "NVIDIA Container Toolkit" in str(caught.value.hint)


def test_daemon_that_does_not_answer(contained: Plan, docker: FakeDocker) -> None:
    docker.close()
    (docker.directory / "d.sock").unlink()
    with pytest.raises(EnvironmentError_, match="Cannot connect") as caught:
        contained()
    assert "systemctl start docker" in str(caught.value.hint)


def test_daemon_elsewhere_is_refused(contained: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://user@node7")
    with pytest.raises(EnvironmentError_, match="another machine"):
        contained()


def test_cpu_runtime_has_no_image_of_its_own(docker: FakeDocker, make_plan: Plan) -> None:
    with pytest.raises(UnsupportedError) as caught:
        ContainerLauncher("openvino").prepare(
            deployment(image=None), make_plan().repository, "d", environment={}, progress=Silent()
        )
    assert caught.value.where == "serving.launcher"


def test_repulled_image_is_another_plan(contained: Plan, docker: FakeDocker) -> None:
    before = contained()
    docker.images[IMAGE] = "sha256:" + "b" * 64
    assert contained().fingerprint != before.fingerprint


def test_old_state_files_still_load() -> None:
    fields = dict.fromkeys(("name", "machine", "repository", "repository_digest"), "x")
    state = RunState.model_validate(
        {
            **fields,
            "status": "ready",
            "supervisor_pid": 1,
            "supervisor_start": 1,
            "plan_fingerprint": "x",
            "launched_at": "x",
        }
    )
    assert state.cleanup == ()


def test_path_that_the_server_could_not_pass_on_is_refused_at_once(
    docker: FakeDocker, tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentError_, match="spaces"):
        ContainerLauncher("openvino").prepare(
            deployment(), tmp_path / "my dir", "d", environment={}, progress=Silent()
        )
    assert docker.asked == []
