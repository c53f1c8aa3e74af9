"""Peak resident memory of one stage: this process and what it started."""

from __future__ import annotations

import contextlib
import resource
import threading
from pathlib import Path
from types import TracebackType

_PAGE = resource.getpagesize()
_SAMPLE_S = 0.1


class MemoryPeak:
    """Measures from ``with`` on; read :attr:`bytes` afterwards.

    The kernel's own high-water mark is reset at the start, so that the peak of an earlier stage
    does not count; where a sandbox forbids the reset, the mark counts only once it has risen.
    Everything else is seen by sampling ten times a second, so what lives shorter may be missed.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._mark_before = 0
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True, name="memory")

    def __enter__(self) -> MemoryPeak:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._mark_before = _high_water()
        self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._sampler.join()
        mark = _high_water()
        self.bytes = max(self.bytes, _tree_bytes(), mark if mark > self._mark_before else 0)

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self.bytes = max(self.bytes, _tree_bytes())


def _tree_bytes() -> int:
    pending, seen, total = ["self"], set(), 0
    while pending:
        process = pending.pop()
        seen.add(process)
        root = Path("/proc") / process
        # A process may end between two reads.
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int((root / "statm").read_text().split()[1]) * _PAGE
            for task in (root / "task").iterdir():
                pending += set((task / "children").read_text().split()) - seen
    return total


def _high_water() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
