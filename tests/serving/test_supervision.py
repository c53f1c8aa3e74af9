"""The supervisor on a real Triton: crashes, hangs, memory, drains, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolkit.errors import ServerError
from toolkit.progress import Silent
from toolkit.serving import deploy, probe, procfs, status
from toolkit.serving.health import STUB_NAME
from toolkit.serving.launch import ADMIN_HEADER, ADMIN_METADATA, LaunchPlan
from toolkit.serving.state import RunDirectory, RunState
from toolkit.spec.models import Ports

pytestmark = pytest.mark.e2e
MakePlan = Callable[..., LaunchPlan]


def generate(server: deploy.RunningServer, prompt: str, tokens: int = 1) -> tuple[int, bytes]:
    url = f"{server.http_url}/v2/models/{server.name}/generate_stream"
    body = {"text_input": prompt, "max_tokens": tokens, "stream": True}
    return probe.post(url, body, timeout=60)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def stubs(server: deploy.RunningServer) -> dict[int, int]:
    pid = server.state().server_pid
    return procfs.children(pid, STUB_NAME) if pid else {}


def segments(state: RunState) -> list[str]:
    return [each.name for each in Path("/dev/shm").glob(f"{state.shm_prefix}*")]


def restarted(server: deploy.RunningServer, times: int) -> bool:
    state = server.state()
    return state.status == "ready" and len(state.restarts) == times


@contextlib.contextmanager
def in_flight(server: deploy.RunningServer) -> Iterator[list[tuple[int, bytes]]]:
    """Four requests that would run for 20 s; the list has their ends once the block is over."""
    ends: list[tuple[int, bytes]] = []
    threads = [
        threading.Thread(target=lambda: ends.append(generate(server, "slow", 400)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert not ends
    yield ends
    for thread in threads:
        thread.join(timeout=30)


@pytest.fixture
def server(make_plan: MakePlan, state_dir: Path) -> Iterator[deploy.RunningServer]:
    with deploy.start(make_plan(), state_dir, progress=Silent(), tied=True) as running:
        yield running


def test_killed_model_process_ends_requests_and_comes_back(server: deploy.RunningServer) -> None:
    before = stubs(server)
    with in_flight(server) as ends:
        os.kill(next(iter(before)), signal.SIGKILL)
    assert [status for status, _ in ends] == [0, 0, 0, 0]
    until(lambda: restarted(server, 1))
    assert stubs(server).keys().isdisjoint(before)
    assert generate(server, "hello")[0] == 200
    restart = server.state().restarts[0]
    assert "python model died" in restart.reason
    assert restart.downtime_s is not None


def test_killed_server_keeps_its_ports(server: deploy.RunningServer) -> None:
    state = server.state()
    assert state.server_pid is not None
    with in_flight(server) as ends:
        os.kill(state.server_pid, signal.SIGKILL)
    assert [status for status, _ in ends] == [0, 0, 0, 0]
    until(lambda: restarted(server, 1))
    assert server.state().endpoints == state.endpoints
    assert generate(server, "hello")[0] == 200
    assert len(segments(state)) == 1
    assert server.state().restarts[0].reason == "the server ended with signal SIGKILL"


def test_killed_guard_takes_the_server_along(server: deploy.RunningServer) -> None:
    state = server.state()
    pid = state.server_pid
    assert pid is not None
    guard = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guard, signal.SIGKILL)
    until(lambda: restarted(server, 1))
    assert procfs.start_time(pid) is None
    assert generate(server, "hello")[0] == 200


def test_killed_supervisor_leaves_nothing(server: deploy.RunningServer) -> None:
    state = server.state()
    processes = [state.server_pid or 0, *stubs(server)]
    os.kill(state.supervisor_pid, signal.SIGKILL)
    until(lambda: not any(procfs.start_time(pid) for pid in processes))
    until(lambda: not segments(state))
    found = status.read_status(server._directory)
    assert found is not None
    assert found.status == "dead"


def test_killed_supervisor_and_guard_are_cleared_by_the_next_deploy(
    server: deploy.RunningServer, make_plan: MakePlan, state_dir: Path
) -> None:
    state = server.state()
    model_process = next(iter(stubs(server)))
    guard = int(Path(f"/proc/{state.server_pid}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (guard, state.supervisor_pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: procfs.start_time(state.server_pid or 0) is None and not state.alive)
    again = deploy.start(make_plan(), state_dir, progress=Silent())
    assert not again.reused
    assert segments(state) == []
    until(lambda: procfs.start_time(model_process) is None)
    again.stop()


def test_drain_lets_requests_finish_and_refuses_new_ones(server: deploy.RunningServer) -> None:
    state = server.state()
    ends: list[tuple[int, bytes]] = []
    request = threading.Thread(target=lambda: ends.append(generate(server, "slow", 40)))
    request.start()
    time.sleep(0.5)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    until(lambda: server.state().status == "draining")
    until(lambda: generate(server, "late")[0] != 200)
    request.join()
    stopping.join()
    assert ends[0][0] == 200
    assert b"slow39" in ends[0][1]
    last = server.state()
    assert last.status == "stopped"
    assert last.restarts == ()
    assert segments(state) == []


def test_model_that_does_not_unload_is_not_waited_for(make_plan: MakePlan, state_dir: Path) -> None:
    plan = make_plan(environment={"WORDS_FAULT": "wedged"}, drain_timeout=120)
    server = deploy.start(plan, state_dir, progress=Silent(), tied=True)
    model_processes = stubs(server)
    server.stop()
    assert "a model does not unload; killing the server" in server.log.read_text()
    assert not any(procfs.start_time(pid) for pid in model_processes)


def test_forced_stop_does_not_wait(server: deploy.RunningServer) -> None:
    with in_flight(server) as ends:
        server.stop(force=True)
    assert len(ends) == 4
    assert all(b"slow399" not in body for _, body in ends)


def test_admin_endpoints_need_the_key(server: deploy.RunningServer) -> None:
    import tritonclient.grpc as grpc_client

    key = server._directory.admin_key()
    url = f"{server.http_url}/v2/repository/index"
    assert probe.post(url, {}, 5)[0] >= 400
    assert probe.post(url, {}, 5, {ADMIN_HEADER: "guess"})[0] >= 400
    assert probe.post(url, {}, 5, {ADMIN_HEADER: key})[0] == 200
    for path in ("logging", "trace/setting", "systemsharedmemory/status"):
        assert probe.get(f"{server.http_url}/v2/{path}", 5)[0] >= 400
    client = grpc_client.InferenceServerClient(server.grpc_url)
    with pytest.raises(grpc_client.InferenceServerException):
        client.get_system_shared_memory_status()
    client.get_system_shared_memory_status(headers={ADMIN_METADATA: key})
    own = server._directory.path
    written = [each for each in own.rglob("*") if each.is_file() and not each.is_symlink()]
    holding = [each.name for each in written if key.encode() in each.read_bytes()]
    assert holding == ["admin.key"]
    assert (own / "admin.key").stat().st_mode & 0o077 == 0


def test_serving_does_not_change_the_repository(
    server: deploy.RunningServer, make_plan: MakePlan
) -> None:
    assert generate(server, "hello")[0] == 200
    repository = make_plan().repository
    assert not list(repository.rglob("__pycache__"))
    assert server.state().repository_digest == deploy.repository_digest(repository)


def test_same_build_is_left_running_another_is_refused(
    server: deploy.RunningServer, make_plan: MakePlan, state_dir: Path
) -> None:
    pid = server.state().server_pid
    again = deploy.start(make_plan(), state_dir, progress=Silent())
    assert again.reused
    assert again.http_url == server.http_url
    other = make_plan(repository_digest="another")
    with pytest.raises(ServerError, match="running already") as caught:
        deploy.start(other, state_dir, progress=Silent())
    assert "--replace" in (caught.value.hint or "")
    assert server.state().server_pid == pid
    replaced = deploy.start(other, state_dir, progress=Silent(), replace=True, tied=True)
    assert not replaced.reused
    assert replaced.state().server_pid != pid


def test_out_of_memory_restarts_with_less_cache(make_plan: MakePlan, state_dir: Path) -> None:
    plan = make_plan(environment={"WORDS_FAULT": "memory"})  # fits below 60 % of the cache
    with deploy.start(plan, state_dir, progress=Silent(), tied=True) as running:
        state = running.state()
        assert state.kv_cache_scale == pytest.approx(0.49)
        assert len(state.restarts) == 2
        assert "out of memory" in state.restarts[0].reason
        assert generate(running, "hello")[0] == 200


def test_model_that_does_not_load_is_named_and_not_tried_again(
    make_plan: MakePlan, state_dir: Path
) -> None:
    plan = make_plan(environment={"WORDS_FAULT": "load"})
    with pytest.raises(ServerError, match="weights are of another model") as caught:
        deploy.start(plan, state_dir, progress=Silent())
    assert "the model words" in caught.value.message
    assert any("failed to load" in line for line in caught.value.details)
    state = RunDirectory(state_dir, "words").read()
    assert state is not None
    assert state.status == "failed"
    assert state.restarts == ()
    assert segments(state) == []


def test_missing_libpython_fails_at_once_instead_of_waiting(
    make_plan: MakePlan, state_dir: Path, tmp_path: Path
) -> None:
    backends = tmp_path / "backends/python"
    backends.mkdir(parents=True)
    original = make_plan().backends / "python"
    for path in original.iterdir():
        if path.is_file() and path.name != "triton_python_backend_stub":
            (backends / path.name).write_bytes(path.read_bytes())
    stub = backends / "triton_python_backend_stub"
    stub.write_text(
        '#!/bin/sh\necho "$0: error while loading shared libraries: libpython3.99.so.1.0: '
        'cannot open shared object file" >&2\nexit 127\n'
    )
    stub.chmod(0o755)
    plan = make_plan(backends=tmp_path / "backends")
    with pytest.raises(ServerError, match=r"libpython3\.99") as caught:
        deploy.start(plan, state_dir, progress=Silent())
    assert "libpython" in (caught.value.hint or "")


def test_taken_port_names_port_field_and_process(make_plan: MakePlan, state_dir: Path) -> None:
    code = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        plan = make_plan(ports=Ports(http=0, grpc=port, metrics=0))
        with pytest.raises(ServerError, match=f"port {port}") as caught:
            deploy.start(plan, state_dir, progress=Silent())
        assert f"pid {other.pid}" in caught.value.message
        assert "serving.ports.grpc" in (caught.value.hint or "")


def test_server_tied_to_a_process_ends_with_it(
    make_plan: MakePlan, state_dir: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(make_plan().model_dump_json())
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from toolkit.progress import Silent; from toolkit.serving import deploy\n"
        "from toolkit.serving.launch import LaunchPlan\n"
        f"plan = LaunchPlan.model_validate_json(Path({str(plan)!r}).read_text())\n"
        f"deploy.start(plan, Path({str(state_dir)!r}), progress=Silent(), tied=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": str(root)}
    )
    directory = RunDirectory(state_dir, "words")
    until(lambda: (state := directory.read()) is not None and state.status == "stopped")
    assert not (state := directory.read()) or segments(state) == []


def test_spaces_in_paths_do_not_matter(make_plan: MakePlan, tmp_path: Path) -> None:
    backends = tmp_path / "its backends & co"
    backends.symlink_to(make_plan().backends)
    plan = make_plan(backends=backends)
    state_dir = tmp_path / "my $HOME dir" / "it's"
    with deploy.start(plan, state_dir, progress=Silent(), tied=True) as running:
        assert generate(running, "hello")[0] == 200


def test_model_process_that_dies_at_the_start_is_not_waited_for(
    make_plan: MakePlan, state_dir: Path
) -> None:
    plan = make_plan(environment={"WORDS_FAULT": "dies"}, ready_timeout=600)
    with pytest.raises(ServerError) as caught:
        deploy.start(plan, state_dir, progress=Silent(), tied=True)
    told = " ".join([caught.value.message, *caught.value.details])
    assert "died" in told
    assert "not ready within" not in told
