"""What has to be right before a server is started, each with the command that mends it.

Every one of these makes Triton fail late and obscurely: a missing libpython leaves it waiting
for its stub, numpy 2 kills the stub at the first string tensor, a small /dev/shm under load.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from importlib import metadata
from pathlib import Path

from toolkit.errors import EnvironmentError_
from toolkit.serving.install import ServerBinary, python_version
from toolkit.spec.models import Runtime

MIN_GLIBC = (2, 35)
"""The nvidia-pytriton wheel is tagged manylinux_2_35."""

MIN_SHARED_MEMORY = 64 * 2**20
_LIBPYTHON = re.compile(rb"libpython3(?:-[0-9a-f]+)?\.(\d+)\.so")


def check(binary: ServerBinary, runtime: Runtime) -> None:
    """Check that ``binary`` can serve a repository of ``runtime`` from this environment.

    Raises:
        EnvironmentError_: with the one thing that is missing and how to get it.
    """
    if binary.origin == "installed":
        check_glibc(platform.libc_ver()[1])
    check_libraries(binary.executable)
    check_shared_memory()
    if binary.stub.exists():
        check_stub(binary.stub)
    elif runtime == "openvino":
        raise EnvironmentError_(
            "this tritonserver has no python backend",
            where=str(binary.executable),
            hint="unset TOOLKIT_TRITONSERVER (or take it off PATH) and run `toolkit server "
            "install`",
        )
    if runtime == "openvino":
        check_numpy(_installed_version("numpy"))
        if importlib.util.find_spec("openvino") is None:
            raise EnvironmentError_(
                "the CPU runtime needs the package openvino, which is not installed",
                hint="pip install 'triton-trtllm-toolkit[cpu]'",
            )


def require_mpirun() -> Path:
    """Where Open MPI's launcher is.

    Raises:
        EnvironmentError_: it is not on PATH.
    """
    found = shutil.which("mpirun")
    if found is None:
        raise EnvironmentError_(
            "an engine over several GPUs is started by mpirun, which is not on PATH",
            hint="run inside the serving container of the release, or set serving.launcher: "
            "container",
        )
    return Path(found)


def check_glibc(version: str) -> None:
    """The wheel's server needs a recent C library."""
    parts = tuple(int(each) for each in re.findall(r"\d+", version)[:2])
    if not parts:
        raise EnvironmentError_(
            "the installed server needs glibc, this system has another C library",
            hint="use a glibc distribution: Debian 12, Ubuntu 22.04, RHEL 10 or newer",
        )
    if parts < MIN_GLIBC:
        raise EnvironmentError_(
            f"the installed server needs glibc >= 2.35, this system has {version}",
            hint="use Debian 12, Ubuntu 22.04 or newer, or run inside a container of those",
        )


def check_numpy(version: str | None) -> None:
    """The stub of Triton 2.51 dies at its first string tensor under numpy 2."""
    if version is None:
        raise EnvironmentError_(
            "python models need numpy, which is not installed", hint="pip install 'numpy<2'"
        )
    if int(version.partition(".")[0]) >= 2:
        raise EnvironmentError_(
            f"Triton's python backend needs numpy below 2, this environment has {version}",
            hint="pip install 'numpy<2'",
        )


def check_stub(stub: Path) -> None:
    """The stub is built for one Python version and loads that version's shared library."""
    match = _LIBPYTHON.search(stub.read_bytes())
    built_for = f"3.{int(match[1])}" if match else None
    if built_for and built_for != python_version():
        raise EnvironmentError_(
            f"the server's python backend is built for Python {built_for}, this environment has "
            f"{python_version()}",
            where=str(stub),
            hint=f"use a Python {built_for} environment, or run `toolkit server install` and unset "
            "TOOLKIT_TRITONSERVER",
        )
    check_libraries(stub)


def check_libraries(path: Path) -> None:
    """Every shared library that ``path`` needs is found with :func:`library_path`."""
    missing = missing_libraries(path, library_path())
    if not missing:
        return
    libpython = next((each for each in missing if each.startswith("libpython")), None)
    if libpython:
        version = python_version()
        raise EnvironmentError_(
            f"the python backend needs {libpython}, which is not on this system",
            where=str(path),
            hint=f"Debian, Ubuntu: apt-get install libpython{version}; pyenv: rebuild with "
            f"PYTHON_CONFIGURE_OPTS=--enable-shared",
        )
    raise EnvironmentError_(
        f"the server lacks shared libraries: {', '.join(missing)}",
        where=str(path),
        hint="install the packages of your distribution that hold them",
    )


def library_path() -> str:
    """LD_LIBRARY_PATH for the server: the caller's, and where this Python keeps its library."""
    entries = [each for each in os.environ.get("LD_LIBRARY_PATH", "").split(":") if each]
    directory = sysconfig.get_config_var("LIBDIR")
    library = sysconfig.get_config_var("INSTSONAME") or f"libpython{python_version()}.so.1.0"
    if directory and (Path(directory) / library).exists() and directory not in entries:
        entries.append(directory)
    return ":".join(entries)


def missing_libraries(path: Path, search: str) -> list[str]:
    """Names of the shared libraries that the loader does not find for ``path``."""
    ldd = shutil.which("ldd")
    if ldd is None:
        return []
    listing = subprocess.run(
        [ldd, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LD_LIBRARY_PATH": search},
    )
    return sorted(
        {
            line.split()[0]
            for line in listing.stdout.splitlines()
            if line.rstrip().endswith("not found")
        }
    )


def check_shared_memory(path: Path = Path("/dev/shm")) -> None:
    """Tensors travel between server and model through shared memory."""
    if not path.is_dir():
        raise EnvironmentError_(
            "there is no shared memory at /dev/shm",
            hint="mount it: mount -t tmpfs tmpfs /dev/shm",
        )
    free = shutil.disk_usage(path).free
    if free < MIN_SHARED_MEMORY:
        raise EnvironmentError_(
            f"/dev/shm has {free // 2**20} MiB free, Triton's python backend needs 64",
            hint="docker: run with --shm-size=1g; else: mount -o remount,size=1g /dev/shm",
        )


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
