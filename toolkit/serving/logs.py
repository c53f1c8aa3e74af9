"""The server's log: written with rotation, read from its end, followed while it grows."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LOG_NAME = "server.log"


class RotatingLog:
    """Appends bytes to a file; past ``max_bytes`` the file becomes ``.1``, ``.1`` becomes ``.2``.

    Thread-safe. Rotation happens at a line's end, so that no line is torn apart. What a full disk
    has no room for is lost: no server is ended for want of a log.
    """

    def __init__(self, path: Path, max_bytes: int = 20_000_000, keep: int = 3) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._size = path.stat().st_size

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        with self._lock:
            if self._file.closed:
                return
            with contextlib.suppress(OSError):
                self._file.write(data)
                self._size += len(data)
                if self._size >= self._max_bytes and data.endswith(b"\n"):
                    self._rotate()

    def say(self, message: str) -> None:
        """Append a line of the supervisor itself, with the time."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        self.write(f"{stamp} toolkit: {message}\n".encode())

    def close(self) -> None:
        """Close the file; later writes are dropped."""
        with self._lock:
            self._file.close()

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        old, self._file = self._file, self.path.open("ab", buffering=0)
        old.close()
        self._size = 0


def tail(path: Path, lines: int) -> list[str]:
    """The last ``lines`` lines of ``path`` (at most its last MiB); empty if it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            start = max(0, file.tell() - 2**20)
            file.seek(start)
            found = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return found[-lines:] if lines else []


def follow(
    path: Path, *, ended: Callable[[], bool], from_end: bool = True, interval: float = 0.2
) -> Iterator[str]:
    """Lines as they are written, across rotations, until ``ended()`` and nothing is left.

    ``from_end`` skips what is in the file already.
    """
    while not path.exists():
        if ended():
            return
        time.sleep(interval)
    file = path.open("rb")
    try:
        if from_end:
            file.seek(0, os.SEEK_END)
        rest = b""
        while True:
            finished = ended()  # asked before reading, so that the last lines are not missed
            rotated = _rotated(path, file.fileno())  # likewise: nothing is written to it any more
            data = file.read()
            if data:
                *whole, rest = (rest + data).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
                continue
            if rotated:
                file.close()
                file = path.open("rb")
                continue
            if finished:
                break
            time.sleep(interval)
        if rest:
            yield rest.decode(errors="replace")
    finally:
        file.close()


def _rotated(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
