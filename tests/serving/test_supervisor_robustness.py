"""What must not go wrong around a server: its output, its memory, its supervisor's last moments."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.errors import ServerError
from toolkit.progress import Silent
from toolkit.serving import deploy, procfs
from toolkit.serving.foreground import run_foreground
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.logs import RotatingLog, follow
from toolkit.serving.process import ServerProcess
from toolkit.serving.state import Failure, RunDirectory, RunState, now
from toolkit.serving.supervisor import Supervisor
from toolkit.spec.models import Ports


def state(**changes: object) -> RunState:
    pid = os.getpid()
    return RunState(
        name="chat",
        status="ready",
        machine=socket.gethostname(),
        supervisor_pid=pid,
        supervisor_start=procfs.start_time(pid) or 0,
        repository="/r",
        repository_digest="d",
        plan_fingerprint="f",
        launched_at=now(),
    ).model_copy(update=changes)


def written(root: Path, **changes: object) -> RunDirectory:
    directory = RunDirectory(root, "chat")
    directory.create()
    directory.write(state(**changes))
    return directory


def plan(root: Path, **changes: object) -> LaunchPlan:
    (root / "repository").mkdir(exist_ok=True)
    made = LaunchPlan(
        name="chat",
        repository=root / "repository",
        repository_digest="d",
        executable=Path("/bin/false"),
        backends=root,
        host="127.0.0.1",
        ports=Ports(http=0, grpc=0, metrics=0),
        ready_timeout=30,
        drain_timeout=1,
        max_batch_size=1,
    )
    return made.model_copy(update=changes)


def no_signal(pid: int, number: int) -> None:
    raise AssertionError(f"signal {number} for {pid}")


@pytest.mark.parametrize("status", ["stopped", "failed"])
def test_a_supervisor_that_has_ended_its_work_is_not_signalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """Its process may be a program that goes on, such as one that called ``run_foreground``."""
    directory = written(tmp_path, status=status)
    monkeypatch.setattr(deploy.os, "kill", no_signal)
    last = deploy.stop(directory)
    assert last is not None
    assert last.status == status
    assert deploy.running_already(directory, plan(tmp_path), replace=False) is None


def test_one_process_can_run_in_the_foreground_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy.os, "kill", no_signal)
    for _ in range(2):
        assert run_foreground(plan(tmp_path), tmp_path, echo=lambda data: None).status == "failed"


def test_foreground_gives_the_signals_back(tmp_path: Path) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    run_foreground(plan(tmp_path), tmp_path, echo=lambda data: None)
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_supervisor_that_ends_while_it_is_asked_to_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        directory = written(
            tmp_path,
            supervisor_pid=other.pid,
            supervisor_start=procfs.start_time(other.pid) or 0,
        )

        kill = os.kill

        def late(pid: int, number: int) -> None:
            kill(pid, signal.SIGKILL)
            other.wait()
            raise ProcessLookupError

        monkeypatch.setattr(deploy.os, "kill", late)
        assert deploy.stop(directory) is not None


class FailedMeanwhile:
    """A supervisor that ends between two looks, its last words on disk."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    def poll(self) -> int:
        self._directory.write(state(status="failed", failure=Failure(message="no such weights")))
        return 6


def test_the_reason_of_a_failure_is_told_however_it_is_timed(tmp_path: Path) -> None:
    directory = written(tmp_path, status="starting")
    with pytest.raises(ServerError, match="no such weights"):
        deploy._await_ready(directory, FailedMeanwhile(directory), Silent())  # type: ignore[arg-type]


def full_disk(data: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_server_is_heard_to_its_end_though_nobody_can_keep_its_log(tmp_path: Path) -> None:
    heard: list[bytes] = []

    def sink(data: bytes) -> None:
        heard.append(data)
        full_disk(data)

    code = "import sys; [print('x' * 1000, flush=True) for _ in range(300)]; sys.exit(7)"
    process = ServerProcess(
        [sys.executable, "-c", code], dict(os.environ), shm_prefix="", sink=sink
    )
    end = process.wait(20)
    process.close()
    assert end is not None
    assert end.code == 7
    assert sum(map(len, heard)) == 300 * 1001


def test_a_log_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "server.log", max_bytes=10)
    log.write(b"before\n")
    (tmp_path / "server.log.2").touch()
    (tmp_path / "server.log.3").mkdir()  # in the way of the oldest
    log.write(b"a line that rotates\n")
    log.write(b"after\n")
    log.close()
    assert (tmp_path / "server.log").read_text() == "before\na line that rotates\nafter\n"
    full = RotatingLog(Path("/dev/full"))
    full.write(b"lost\n")
    full.say("lost")
    full.close()


def test_a_state_that_cannot_be_written_ends_no_server_and_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDirectory(tmp_path, "chat")
    directory.create()
    supervisor = Supervisor(plan(tmp_path), directory)
    supervisor._log = RotatingLog(directory.log)
    supervisor._state = state(status="starting")
    with monkeypatch.context() as full:
        full.setattr(directory, "write", full_disk)
        supervisor._update(status="ready")
        supervisor._update(detail="still")
    assert directory.read() is None
    assert directory.log.read_text().count("No space left on device") == 1
    supervisor._pause(0)
    written = directory.read()
    assert written is not None
    assert (written.status, written.detail) == ("ready", "still")


def test_a_follower_reads_what_came_right_before_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_bytes(b"")
    reads = 0

    def ended() -> bool:
        nonlocal reads
        reads += 1
        return reads > 3

    lines = follow(path, ended=ended, from_end=False, interval=0)
    original = Path.stat

    def stat_after_rotation(self: Path, **options: bool) -> os.stat_result:
        """The writer's last line and its rotation fall between a read and the look at the name."""
        if self == path and reads == 1:
            with path.open("ab") as old:
                old.write(b"last of the old\n")
            path.rename(path.with_suffix(".log.1"))
            path.write_bytes(b"first of the new\n")
        return original(self, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "stat", stat_after_rotation)
        assert list(lines) == ["last of the old", "first of the new"]


def test_one_life_does_not_begin_with_the_words_of_the_last(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "chat")
    directory.create()
    supervisor = Supervisor(plan(tmp_path), directory)
    supervisor._log = RotatingLog(directory.log)
    supervisor._take_output(b"Segmentation fault")
    supervisor._forget_output()
    supervisor._take_output(b"hello\n")
    assert list(supervisor._lines) == ["hello"]
    for _ in range(100):
        supervisor._take_output(b"\rloading" * 1000)
    assert len(supervisor._partial) < 100_000


def kills(*counts: int) -> Callable[[], int]:
    left = list(counts)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_memory_is_blamed_for_a_kill_of_now_and_not_of_weeks_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(procfs, "oom_kills", kills(4, 5))
    watch = procfs.KernelKills()
    assert watch.recent(at=100.0, within=10.0)
    assert watch.recent(at=109.0, within=10.0)
    assert not watch.recent(at=5000.0, within=10.0)


def test_a_server_that_crashes_long_after_a_kill_keeps_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something else ran out of memory while this server was starting well."""
    monkeypatch.setattr(procfs, "oom_kills", kills(0, 1))
    watch = procfs.KernelKills()
    began = time.monotonic()
    watch.sample(began)
    assert not watch.recent(began + 3600, within=10.0)
