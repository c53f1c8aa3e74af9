"""The process beside the server: it listens, comes back, drains, and ends with the server."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolkit.errors import ServerError
from toolkit.progress import Silent
from toolkit.serving import deploy, procfs
from toolkit.serving.companion import Companion, CompanionPlan
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.ports import Endpoints
from toolkit.serving.state import RunDirectory

BESIDE = Endpoints("127.0.0.1", 1, 2, 3)

PROGRAM = """
import os, signal, socketserver, sys, time
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
if sys.argv[1] == "broken":
    sys.exit("cannot start")
class Say(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(f"{os.getpid()} {words['--replica']}".encode())
def end(*_):
    time.sleep(float(sys.argv[1]))
    print("drained", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
socketserver.TCPServer.allow_reuse_address = True
socketserver.TCPServer(("127.0.0.1", int(words["--port"])), Say).serve_forever()
"""


def ask(port: int) -> tuple[int, str]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        pid, replica = connection.recv(1000).decode().split()
    return int(pid), replica


def until(condition: Callable[[], bool], tick: Callable[[], None] = lambda: None) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        tick()
        time.sleep(0.02)


def plan_of(folder: Path, word: str = "0", **fields: object) -> CompanionPlan:
    program = folder / "beside.py"
    program.write_text(PROGRAM)
    values = {"name": "gateway", "host": "127.0.0.1", "port": 0, "field": "gateway.port", **fields}
    return CompanionPlan(command=(sys.executable, str(program), word), **values)  # type: ignore[arg-type]


class Beside:
    def __init__(self, plan: CompanionPlan) -> None:
        self.output = b""
        self.said: list[str] = []
        self.companion = Companion(plan, self._take, self.said.append)

    def _take(self, data: bytes) -> None:
        self.output += data


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Beside]:
    beside = Beside(plan_of(tmp_path))
    beside.companion.start(BESIDE)
    yield beside
    beside.companion.stop()


def test_it_listens_and_knows_the_server(running: Beside) -> None:
    assert ask(running.companion.port)[1] == "127.0.0.1:2/3"
    assert running.companion.url == f"http://127.0.0.1:{running.companion.port}"


def test_it_stays_beside_a_server_that_came_back_and_follows_one_that_moved(
    running: Beside,
) -> None:
    before = ask(running.companion.port)
    running.companion.start(BESIDE)
    assert ask(running.companion.port) == before
    running.companion.start(Endpoints("127.0.0.1", 1, 5, 6))
    assert ask(running.companion.port)[1] == "127.0.0.1:5/6"


def test_it_comes_back_on_the_same_port(running: Beside) -> None:
    port = running.companion.port
    for _ in range(2):
        pid, _ = ask(port)
        os.kill(pid, signal.SIGKILL)

        def back(old: int = pid) -> bool:
            try:
                return ask(port)[0] != old
            except (OSError, ValueError):
                return False

        until(back, running.companion.tick)
    assert sum("ended with signal SIGKILL" in line for line in running.said) == 2


def test_it_drains_when_it_is_told_to_end(tmp_path: Path) -> None:
    beside = Beside(plan_of(tmp_path, "0.3"))
    beside.companion.start(BESIDE)
    pid, _ = ask(beside.companion.port)
    beside.companion.stop()
    assert b"drained" in beside.output
    assert procfs.start_time(pid) is None


def test_it_does_not_drain_in_a_hurry(tmp_path: Path) -> None:
    beside = Beside(plan_of(tmp_path, "600"))
    beside.companion.start(BESIDE)
    pid, _ = ask(beside.companion.port)
    beside.companion.stop(lambda: True)
    assert procfs.start_time(pid) is None


def test_one_that_cannot_start_is_an_error(tmp_path: Path) -> None:
    beside = Beside(plan_of(tmp_path, "broken"))
    with pytest.raises(ServerError, match="the gateway ended with exit code 1"):
        beside.companion.start(BESIDE)
    assert b"cannot start" in beside.output


def test_a_port_that_is_taken_is_told_by_its_field(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        beside = Beside(plan_of(tmp_path, port=port))
        with pytest.raises(ServerError, match=f"port {port} is already in use") as caught:
            beside.companion.start(BESIDE)
    assert caught.value.where == "gateway.port"


@pytest.mark.e2e
def test_it_lives_as_long_as_its_server(
    make_plan: Callable[..., LaunchPlan], state_dir: Path, tmp_path: Path
) -> None:
    plan = make_plan(companion=plan_of(tmp_path))
    server = deploy.start(plan, state_dir, progress=Silent(), tied=True)
    port = int(server.companion_url.rpartition(":")[2])
    pid, replica = ask(port)
    assert replica == f"{server.endpoints.grpc_url}/{server.endpoints.metrics}"
    os.kill(server.state().server_pid or 0, signal.SIGKILL)
    until(lambda: server.state().status == "ready" and len(server.state().restarts) == 1)
    assert ask(port) == (pid, replica)
    server.stop()
    assert procfs.start_time(pid) is None


@pytest.mark.e2e
def test_a_server_whose_companion_cannot_start_is_not_left_alone(
    make_plan: Callable[..., LaunchPlan], state_dir: Path, tmp_path: Path
) -> None:
    plan = make_plan(companion=plan_of(tmp_path, "broken"))
    with pytest.raises(ServerError, match="the gateway ended"):
        deploy.start(plan, state_dir, progress=Silent())
    state = RunDirectory(state_dir, plan.name).read()
    assert state is not None
    assert (state.status, state.server_pid) == ("failed", None)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", state.http_port), timeout=5)
