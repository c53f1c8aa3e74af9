"""The child process of :mod:`toolkit.quantize.child`: one job, events on standard output.

The request arrives as JSON on standard input. Whatever libraries print goes to standard error,
which is the log; the events have the original standard output to themselves.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from toolkit.errors import ToolkitError
from toolkit.progress import Progress
from toolkit.spec.models import Calibration, Quantization

_PR_SET_PDEATHSIG = 1


class EventProgress:
    """Sends every step as one JSON line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def start(self, what: str, total: float | None = None, unit: str = "") -> None:
        """See :class:`toolkit.progress.Progress`."""
        self._send("start", what, total, unit)

    def advance(self, amount: float = 1) -> None:
        """See :class:`toolkit.progress.Progress`."""
        self._send("advance", amount)

    def finish(self, result: str = "") -> None:
        """See :class:`toolkit.progress.Progress`."""
        self._send("finish", result)

    def note(self, message: str) -> None:
        """See :class:`toolkit.progress.Progress`."""
        self._send("note", message)

    def _send(self, event: str, *arguments: Any) -> None:
        send(self._stream, {"event": event, "arguments": arguments})


def send(stream: IO[str], event: Mapping[str, Any]) -> None:
    """One event a line, at once."""
    stream.write(json.dumps(event) + "\n")
    stream.flush()


def main() -> None:
    """Run the job that the first argument names."""
    _die_with_parent()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        value = JOBS[sys.argv[1]](request, EventProgress(events))
    except ToolkitError as error:
        send(events, _described(error))
    except Exception as error:
        traceback.print_exc()
        lines = str(error).splitlines() or [""]
        send(events, {"event": "error", "kind": type(error).__name__, "message": lines[0]})
    else:
        send(events, {"event": "result", "value": value})


def _described(error: ToolkitError) -> dict[str, Any]:
    return {
        "event": "error",
        "kind": type(error).__name__,
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
        "details": list(error.details),
    }


def _die_with_parent() -> None:
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _quantize(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    from toolkit.quantize.modelopt_run import quantize_here

    report = quantize_here(
        Path(request["checkpoint"]),
        Quantization.model_validate(request["spec"]),
        Path(request["out"]),
        Path(request["scratch"]),
        judged=request["judged"],
        progress=progress,
    )
    return report.to_json()


def _export_tensorrt_llm(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    from toolkit.quantize.trtllm_export import export_here

    report = export_here(
        Path(request["checkpoint"]),
        Quantization.model_validate(request["spec"]),
        Path(request["out"]),
        Path(request["scratch"]),
        tensor=request["tensor"],
        pipeline=request["pipeline"],
        progress=progress,
    )
    return report.to_json()


def _derive_draft(request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    from toolkit.quantize.distill import derive_here

    return derive_here(
        Path(request["checkpoint"]),
        layers=request["layers"],
        steps=request["steps"],
        calibration=Calibration.model_validate(request["calibration"]),
        out=Path(request["out"]),
        seed=request["seed"],
        progress=progress,
    ).to_json()


JOBS: dict[str, Callable[[Mapping[str, Any], Progress], dict[str, Any]]] = {
    "quantize": _quantize,
    "export_tensorrt_llm": _export_tensorrt_llm,
    "derive_draft": _derive_draft,
}

if __name__ == "__main__":
    main()
