"""Run one heavy job in a child process, and replay its progress.

A process of its own gives the memory of torch and ModelOpt back to the system when the job ends,
keeps their output out of the terminal (it goes to a log whose end is shown on failure), and can
be stopped at any moment: on Ctrl-C it is terminated, and the kernel kills it if this process dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import toolkit
from toolkit import errors
from toolkit.errors import BuildError, ToolkitError
from toolkit.progress import Progress

_GRACE = 10.0
"""Seconds between asking the child to end and killing it."""
_TAIL = 25
"""Lines of the log that an error shows."""
_KINDS = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ToolkitError)
}


def run_job(job: str, request: Mapping[str, Any], *, progress: Progress) -> dict[str, Any]:
    """Run ``job`` of :mod:`toolkit.quantize.worker` on ``request`` and return its result.

    Raises:
        ToolkitError: of the kind that the job raised.
        BuildError: the job failed otherwise or its process died; the log's end is attached.
    """
    with _log_file() as log:
        with (
            subprocess.Popen(
                _command(job),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=_environment(),
                start_new_session=True,
            ) as process,
            _ended(process),
        ):
            outcome = _follow(process, request, progress)
            code = process.wait()
        if outcome is not None and outcome["event"] == "result":
            Path(log.name).unlink()
            return dict(outcome["value"])
        raise _failure(outcome, code, Path(log.name))


def _command(job: str) -> list[str]:
    return [sys.executable, "-m", "toolkit.quantize.worker", job]


def _follow(
    process: subprocess.Popen[str], request: Mapping[str, Any], progress: Progress
) -> dict[str, Any] | None:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request))
        process.stdin.close()
    except BrokenPipeError:
        return None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] in ("result", "error"):
            return dict(event)
        getattr(progress, event["event"])(*event["arguments"])
    return None


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


@contextmanager
def _log_file() -> Iterator[IO[str]]:
    with tempfile.NamedTemporaryFile(
        "w", prefix="toolkit-quantize-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        try:
            yield log
        except KeyboardInterrupt:
            Path(log.name).unlink(missing_ok=True)
            raise


def _environment() -> dict[str, str]:
    # The child must find this very package, installed or not.
    root = str(Path(toolkit.__file__).parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        # Threads that wait by spinning starve each other where cores are shared with other work:
        # on two busy cores an fp8 run took 197 s with spinning and 53 s without.
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "TOKENIZERS_PARALLELISM": "false",
    }


def _failure(outcome: Mapping[str, Any] | None, code: int, log: Path) -> ToolkitError:
    if outcome is not None and outcome["kind"] in _KINDS:
        log.unlink()
        return _KINDS[outcome["kind"]](
            outcome["message"],
            where=outcome["where"],
            hint=outcome["hint"],
            details=outcome["details"],
        )
    hint = None
    if outcome is not None:
        what = f"{outcome['kind']}: {outcome['message']}"
    elif code == -signal.SIGKILL:
        what = "its process was killed, most likely because memory ran out"
        hint = "free memory, or lower quantization.calibration.batch_size and max_length"
    elif code < 0:
        what = f"its process died of {signal.Signals(-code).name}"
    else:
        what = f"its process ended with code {code}"
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    return BuildError(
        f"quantization failed: {what}",
        where=str(log),
        hint=hint or "the whole log is in that file",
        details=[line for line in lines if line.strip()][-_TAIL:],
    )
