"""Run TensorRT-LLM's own build commands: found, of the right release, watched, logged."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from toolkit.engine.tensorrt import Command
from toolkit.errors import BuildError, EnvironmentError_, UnsupportedError
from toolkit.progress import Progress
from toolkit.releases import Release

PROGRAM = "trtllm-build"
PACKAGE = "tensorrt_llm"

_TAIL = 25
"""Lines of the log that an error shows."""
_GRACE = 10.0
"""Seconds between asking a build to end and killing it."""
_ASK = f"import importlib.metadata as m; print(m.version({PACKAGE!r}))"


def require_builder(release: Release) -> str | None:
    """The version of the TensorRT-LLM that builds here; None if it does not tell.

    Raises:
        EnvironmentError_: there is no ``trtllm-build`` on the path.
        UnsupportedError: it is of another release: its engines would not load where they serve.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise EnvironmentError_(
            f"there is no {PROGRAM} on the path: engines are built by TensorRT-LLM itself",
            where="PATH",
            hint="toolkit build FILE --where container builds inside the release's image",
        )
    found = _version(Path(program))
    require_release(found, release, where=program)
    return found


def require_release(found: str | None, release: Release, *, where: str) -> None:
    """Refuse a TensorRT-LLM of another release than the deployment's.

    Raises:
        UnsupportedError: it is; what cannot tell its version is left to the read-back.
    """
    if found is None or release.covers(found):
        return
    raise UnsupportedError(
        f"TensorRT-LLM here is {found}, the deployment is for {release.version}: its engines "
        "would not load there",
        where=where,
        hint=f"set engine.release: {found}, or build inside the release's image with "
        "--where container",
    )


def _version(program: Path) -> str | None:
    """The version by the metadata of the Python that runs ``program``; importing takes long."""
    first = program.read_bytes().partition(b"\n")[0].decode("utf-8", "replace")
    if first.startswith("#!"):
        words = [*first[2:].split(), "-c", _ASK]
        try:
            asked = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return asked.stdout.strip() or None if asked.returncode == 0 else None
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return None


def run_command(command: Command, *, progress: Progress) -> None:
    """Run one command to its end.

    Its output goes to a log, kept only if it fails.

    Raises:
        BuildError: it failed; the end of the log is in the details, its path under ``where``.
    """
    made = {"adapter": "adapter", "convert": "converted checkpoint"}
    what = made.get(command.step, f"{command.step} engine")
    with tempfile.NamedTemporaryFile(
        "w", prefix=f"toolkit-{command.step}-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        progress.start(f"{command.argv[0]}: {what}")
        log.write(f"{command}\n")
        log.flush()
        try:
            code = _wait(command, log.fileno())
        except FileNotFoundError as error:
            raise EnvironmentError_(
                f"there is no {command.argv[0]} on the path",
                where="PATH",
                hint="toolkit build FILE --where container builds inside the release's image",
            ) from error
        except BaseException:
            Path(log.name).unlink(missing_ok=True)
            raise
    if code == 0 and any(Path(command.output).iterdir()):
        Path(log.name).unlink()
        progress.finish(what)
        return
    raise _failure(command, code, Path(log.name))


def _wait(command: Command, log: int) -> int:
    Path(command.output).mkdir(parents=True, exist_ok=True)
    with (
        subprocess.Popen(
            command.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        ) as process,
        _ended(process),
    ):
        return process.wait()


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the whole group on an interrupt: a build of several ranks has children of its own."""
    try:
        yield
    except BaseException:
        _signal(process, signal.SIGTERM)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
        raise


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _failure(command: Command, code: int, log: Path) -> BuildError:
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    if code == 0:
        what = "left nothing behind"
    elif code < 0:
        what = f"died of {signal.Signals(-code).name}"
    else:
        what = f"ended with code {code}"
    hint = None
    if code == -signal.SIGKILL:
        hint = "most likely memory ran out: lower engine.tensorrt.workers, or free memory"
    elif any("out of memory" in line.lower() for line in lines[-200:]):
        hint = "lower engine.limits, or engine.tensorrt.workers; toolkit plan shows the sum"
    return BuildError(
        f"{command.argv[0]} {what}", where=str(log), hint=hint, details=lines[-_TAIL:]
    )
