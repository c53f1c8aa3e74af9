"""What /proc tells about processes: identity, children, and who listens on a port."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of ``pid``; None when it is gone or a zombie.

    A pid together with its start time names one process, even after the pid is used again.
    """
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def children(pid: int, name: str = "") -> dict[int, int]:
    """Live children of ``pid`` whose command name begins with ``name``: pid -> start time."""
    found = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            head, _, tail = (entry / "stat").read_bytes().rpartition(b")")
        except OSError:
            continue
        fields = tail.split()
        command = head.partition(b"(")[2].decode(errors="replace")
        if int(fields[1]) == pid and fields[0] not in (b"Z", b"X") and command.startswith(name):
            found[int(entry.name)] = int(fields[19])
    return found


def oom_kills() -> int:
    """Processes that the kernel has killed for memory since boot (0 where it does not say)."""
    try:
        match = re.search(r"^oom_kill (\d+)$", (_PROC / "vmstat").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0


class KernelKills:
    """When the kernel last killed any process for memory, as far as somebody kept looking."""

    def __init__(self) -> None:
        self._count = oom_kills()
        self._last: float | None = None

    def sample(self, at: float) -> None:
        """Look; ``at`` is the monotonic time."""
        count = oom_kills()
        if count > self._count:
            self._count, self._last = count, at

    def recent(self, at: float, within: float) -> bool:
        """Whether there was a kill in the ``within`` seconds before ``at``."""
        self.sample(at)
        return self._last is not None and at - self._last <= within


def resident_bytes(pid: int) -> int:
    """Resident memory of ``pid``; 0 when it is gone."""
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class PortHolder:
    """A process that listens on a port."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})"


def listener(port: int) -> PortHolder | None:
    """Who listens on TCP ``port``; None when nobody does or it belongs to another user."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and inodes & _socket_inodes(entry):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has just ended
            command = Path(words[0].decode(errors="replace")).name or "?"
            return PortHolder(int(entry.name), command)
    return None


def listens(pid: int, port: int) -> bool:
    """Whether process ``pid`` itself listens on TCP ``port``."""
    return bool(_listening_inodes(port) & _socket_inodes(_PROC / str(pid)))


def ancestors(pid: int) -> list[list[str]]:
    """The command lines of ``pid``, of its parent, and so on."""
    found = []
    while pid > 1:
        try:
            words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
            fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            break
        found.append([word.decode(errors="replace") for word in words])
        pid = int(fields[1])
    return found


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def _socket_inodes(process: Path) -> set[str]:
    found = set()
    try:
        for descriptor in (process / "fd").iterdir():
            try:
                found.add(str(descriptor.readlink()))
            except OSError:
                continue
    except OSError:
        return set()
    return found
