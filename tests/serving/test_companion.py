"""The process beside the server: it listens, comes back, drains, and ends with the server."""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from toolkit.errors import ServerError
from toolkit.progress import Silent
from toolkit.serving import companion, deploy, diagnose, procfs
from toolkit.serving.companion import Companion, CompanionPlan
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.logs import RotatingLog
from toolkit.serving.ports import Endpoints
from toolkit.serving.pulse import Pulse
from toolkit.serving.state import RunDirectory
from toolkit.serving.supervisor import Supervisor
from toolkit.spec.models import Ports

BESIDE = Endpoints("127.0.0.1", 1, 2, 3)

PROGRAM = """
import os, signal, socketserver, sys, time
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
if sys.argv[1] == "broken":
    sys.exit("cannot start")
class Say(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.settimeout(0.2)
        try:
            asked = self.request.recv(100)
        except OSError:
            asked = b""
        head = b"HTTP/1.1 200 OK\\r\\nconnection: close\\r\\n\\r\\n" if asked else b""
        self.request.sendall(head + f"{os.getpid()} {words['--replica']}".encode())
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


def test_one_that_hangs_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(companion, "_KILL_AFTER", 0.0)
    beside = Beside(plan_of(tmp_path, health="/health", patience=0.5, drain_timeout=0.0))
    beside.companion.start(BESIDE)
    pid, _ = ask(beside.companion.port)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: procfs.start_time(pid) is None, beside.companion.tick)
    assert any("does not answer" in line for line in beside.said)
    until(lambda: sum("started" in line for line in beside.said) >= 2, beside.companion.tick)
    beside.companion.stop(lambda: True)


def test_one_that_drains_by_itself_is_left_its_time(tmp_path: Path) -> None:
    beside = Beside(plan_of(tmp_path, "1.5", health="/health", patience=0.2))
    beside.companion.start(BESIDE)
    pid, _ = ask(beside.companion.port)
    os.kill(pid, signal.SIGTERM)  # not by its supervisor
    until(lambda: any("ended with" in line for line in beside.said), beside.companion.tick)
    assert b"drained" in beside.output
    beside.companion.stop(lambda: True)


def test_one_that_answers_is_not_silent(running: Beside) -> None:
    pulse = Pulse(f"{running.companion.url}/health", patience=6.0)
    until(lambda: pulse.answers >= 2)
    assert not pulse.silent
    pulse.end()


def test_one_with_a_certificate_of_its_own_answers_too(tmp_path: Path) -> None:
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    words += ["-subj", "/CN=elsewhere", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = own.wrap_socket(server.socket, server_side=True)
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        pulse = Pulse(f"https://127.0.0.1:{server.server_port}/health", patience=6.0)
        until(lambda: pulse.answers >= 1)  # an error, by the way
        pulse.end()
        server.shutdown()
        serving.join()


def test_somebody_else_on_its_port_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        monkeypatch.setattr(companion.ports, "choose_one", lambda *_: port)  # taken just after
        beside = Beside(plan_of(tmp_path))
        with pytest.raises(ServerError, match="the gateway ended with exit code 1"):
            beside.companion.start(BESIDE)
    assert b"Address already in use" in beside.output


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


def test_what_it_reads_is_written_when_it_starts(tmp_path: Path) -> None:
    file = tmp_path / "what.json"
    beside = Beside(plan_of(tmp_path, file=file, content="[1]"))
    assert not file.exists()
    beside.companion.start(BESIDE)
    assert file.read_text() == "[1]"
    file.write_text("another launch that was refused")
    pid, _ = ask(beside.companion.port)
    os.kill(pid, signal.SIGKILL)
    until(lambda: sum("started" in line for line in beside.said) == 2, beside.companion.tick)
    assert file.read_text() == "[1]"
    beside.companion.stop()


def test_one_that_cannot_be_started_again_now_is_started_later(
    running: Beside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    pid, _ = ask(running.companion.port)
    with monkeypatch.context() as full:
        full.setattr(companion, "ServerProcess", no_process)
        os.kill(pid, signal.SIGKILL)
        until(lambda: any("no more proc" in line for line in running.said), running.companion.tick)
    until(lambda: sum("started" in line for line in running.said) == 2, running.companion.tick)


def test_the_wait_for_it_can_be_ended(tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def pause(seconds: float) -> None:
        raise EnoughError

    beside = Beside(plan_of(tmp_path))
    beside.companion.plan = beside.companion.plan.model_copy(
        update={"command": (sys.executable, "-c", "import time; time.sleep(600)")}
    )
    with pytest.raises(EnoughError):
        beside.companion.start(BESIDE, pause)
    beside.companion.stop(lambda: True)


def test_nothing_is_concluded_from_what_it_says(tmp_path: Path) -> None:
    """Its log holds what clients send, which must not look like words of the server."""
    (tmp_path / "repository").mkdir()
    line = b'{"path":"/CUDA out of memory. Tried to allocate 2.00 GiB"}\n'
    program = f"import sys, time; sys.stdout.buffer.write({line!r} * 1000)"
    beside = plan_of(tmp_path).model_copy(update={"command": (sys.executable, "-c", program)})
    launched = LaunchPlan(
        name="chat",
        repository=tmp_path / "repository",
        repository_digest="d",
        executable=Path("/bin/false"),
        backends=tmp_path,
        host="127.0.0.1",
        ports=Ports(http=0, grpc=0, metrics=0),
        ready_timeout=30,
        drain_timeout=1,
        max_batch_size=1,
        companion=beside,
    )
    directory = RunDirectory(tmp_path, "chat")
    directory.create()
    supervisor = Supervisor(launched, directory)
    supervisor._log = RotatingLog(directory.log)
    assert supervisor._companion is not None
    with pytest.raises(ServerError):
        supervisor._companion.start(BESIDE)
    assert line in directory.log.read_bytes()
    assert not supervisor._lines
    assert diagnose.diagnose([line.decode()]) is not None  # of the server's own it would count


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
