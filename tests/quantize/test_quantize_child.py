"""The child process: errors cross over, its death is reported, nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import BuildError, SpecError
from toolkit.progress import Silent
from toolkit.quantize import child
from toolkit.quantize.child import run_job

BODY = """
import sys, os, time, signal
from toolkit.quantize import worker
from toolkit.errors import SpecError

def job(request, progress):
    print('noise of a library')
    os.write(2, b'noise of a C library\\n')
    progress.start('work', 3, 'pieces')
    progress.advance(2)
    progress.note('half-way')
    progress.finish('fine')
    what = request['what']
    if what == 'refuse':
        raise SpecError('no good', where='a field', hint='do better', details=['more'])
    if what == 'fail':
        raise RuntimeError('first line\\nsecond line')
    if what == 'die':
        os.kill(os.getpid(), signal.SIGKILL)
    if what == 'exit':
        os._exit(9)
    if what == 'sleep':
        open(request['pid'], 'w').write(str(os.getpid()))
        time.sleep(600)
    return {'answer': 42}

worker.JOBS['test'] = job
sys.argv = ['worker', 'test']
worker.main()
"""


@pytest.fixture(autouse=True)
def _worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(child, "_command", lambda _: [sys.executable, "-c", BODY])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(child.tempfile, "tempdir", str(tmp_path))


def run(request: Mapping[str, Any], progress: Any = None) -> dict[str, Any]:
    return run_job("test", request, progress=progress or Silent())


def logs(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("toolkit-quantize-*.log"))


def test_result_and_progress(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []

    class Told:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: told.append((name, *arguments))

    assert run({"what": "work"}, Told()) == {"answer": 42}
    assert told == [
        ("start", "work", 3, "pieces"),
        ("advance", 2),
        ("note", "half-way"),
        ("finish", "fine"),
    ]
    assert logs(tmp_path) == []


def test_an_error_of_ours_arrives_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        run({"what": "refuse"})
    error = caught.value
    assert (error.message, error.where, error.hint) == ("no good", "a field", "do better")
    assert error.details == ("more",)
    assert logs(tmp_path) == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("fail", "RuntimeError: first line"),
        ("die", "memory ran out"),
        ("exit", "ended with code 9"),
    ],
)
def test_any_other_end_shows_the_log(tmp_path: Path, what: str, text: str) -> None:
    with pytest.raises(BuildError, match=text) as caught:
        run({"what": what})
    (log,) = logs(tmp_path)
    assert caught.value.where == str(log)
    shown = "\n".join(caught.value.details)
    assert "noise of a C library" in shown
    assert ("second line" in shown) == (what == "fail")


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(path.read_text())


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_ctrl_c_ends_the_child(tmp_path: Path) -> None:
    class Interrupts(Silent):
        def finish(self, result: str = "") -> None:
            wait_for(tmp_path / "pid")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run({"what": "sleep", "pid": str(tmp_path / "pid")}, Interrupts())
    assert gone(wait_for(tmp_path / "pid"))
    assert logs(tmp_path) == []


def test_the_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys; from toolkit.quantize import child; from toolkit.progress import Silent\n"
        f"child._command = lambda job: [sys.executable, '-c', {BODY!r}]\n"
        f"child.run_job('test', {{'what': 'sleep', 'pid': {str(tmp_path / 'pid')!r}}},"
        " progress=Silent())"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    pid = wait_for(tmp_path / "pid")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert gone(pid)
