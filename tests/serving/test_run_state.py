"""State on disk: whole, private, and recognised as stale."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from toolkit.errors import ServerError, SpecError
from toolkit.serving import deploy, procfs, status
from toolkit.serving.state import RunDirectory, RunState, now


def state(name: str = "chat", **changes: object) -> RunState:
    pid = os.getpid()
    return RunState(
        name=name,
        status="ready",
        machine=socket.gethostname(),
        supervisor_pid=pid,
        supervisor_start=procfs.start_time(pid) or 0,
        repository="/r",
        repository_digest="d",
        plan_fingerprint="f",
        launched_at=now(),
    ).model_copy(update=changes)


def written(root: Path, name: str = "chat", **changes: object) -> RunDirectory:
    directory = RunDirectory(root, name)
    directory.create()
    directory.write(state(name, **changes))
    return directory


def test_round_trip_and_privacy(tmp_path: Path) -> None:
    directory = written(tmp_path)
    assert directory.read() == state(launched_at=directory.read().launched_at)  # type: ignore[union-attr]
    assert directory.state_file.stat().st_mode & 0o077 == 0
    assert directory.path.stat().st_mode & 0o077 == 0


def test_absent_and_damaged(tmp_path: Path) -> None:
    assert RunDirectory(tmp_path, "chat").read() is None
    directory = written(tmp_path)
    directory.state_file.write_text("{")
    with pytest.raises(ServerError, match="damaged"):
        directory.read()


def test_alive_needs_pid_start_time_and_machine() -> None:
    assert state().alive
    assert not state(supervisor_start=1).alive
    assert not state(machine="elsewhere").alive
    with subprocess.Popen(["true"]) as ended:
        pass
    assert not state(supervisor_pid=ended.pid).alive


def test_stale_state_shows_as_dead_and_its_memory_is_freed(tmp_path: Path) -> None:
    prefix = f"toolkit_test_{os.getpid()}_"
    segment = Path("/dev/shm") / f"{prefix}x"
    segment.write_bytes(b"left")
    found = status.read_status(written(tmp_path, supervisor_start=1, shm_prefix=prefix))
    assert found is not None
    assert found.status == "dead"
    assert not segment.exists()


def test_memory_of_a_live_server_is_left(tmp_path: Path) -> None:
    directory = written(tmp_path, shm_prefix="anything")
    current = directory.read()
    assert current is not None
    assert directory.clear_stale(current) == []


def test_server_of_another_machine_is_not_stopped_from_here(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="another machine, elsewhere"):
        deploy.stop(written(tmp_path, machine="elsewhere"))


def test_stop_without_a_server(tmp_path: Path) -> None:
    assert deploy.stop(RunDirectory(tmp_path, "chat")) is None
    gone = deploy.stop(written(tmp_path, supervisor_start=1))
    assert gone is not None


def test_find_takes_the_only_one_or_asks(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="nothing is deployed"):
        status.find(tmp_path, None)
    written(tmp_path, "one", supervisor_start=1)
    assert status.find(tmp_path, None).name == "one"
    written(tmp_path, "two", supervisor_start=1)
    with pytest.raises(SpecError, match="several") as caught:
        status.find(tmp_path, None)
    assert "one, two" in (caught.value.hint or "")
    written(tmp_path, "two")
    assert status.find(tmp_path, None).name == "two"
    assert status.find(tmp_path, "one").name == "one"
    with pytest.raises(ServerError, match="three is not deployed"):
        status.find(tmp_path, "three")


def test_lock_is_exclusive_between_processes(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "chat")
    with directory.lock("supervisor", wait=False) as mine:
        assert mine
        with RunDirectory(tmp_path, "chat").lock("supervisor", wait=False) as other:
            assert not other
    with directory.lock("supervisor", wait=False) as again:
        assert again


def test_admin_key_is_made_once(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "chat")
    directory.create()
    key = directory.admin_key()
    assert len(key) == 32
    assert RunDirectory(tmp_path, "chat").admin_key() == key
    other = RunDirectory(tmp_path, "other")
    other.create()
    assert other.admin_key() != key


def test_repository_digest_sees_every_change(tmp_path: Path) -> None:
    (tmp_path / "m/1").mkdir(parents=True)
    file = tmp_path / "m/1/model.py"
    file.write_text("one")
    before = deploy.repository_digest(tmp_path)
    (tmp_path / "m/1/__pycache__").mkdir()
    (tmp_path / "m/1/__pycache__/x.pyc").write_text("compiled")
    assert deploy.repository_digest(tmp_path) == before
    file.write_text("two")
    changed = deploy.repository_digest(tmp_path)
    file.rename(tmp_path / "m/1/other.py")
    assert len({before, changed, deploy.repository_digest(tmp_path)}) == 3
