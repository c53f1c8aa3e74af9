"""Who is building an artifact right now: a lock file that says so and outlives nobody.

The file holds the owner; the owner touches it while it works. A process of this machine is
checked by its number and start time, so a reused number fools nobody; one that cannot be looked
at (another machine, container or, with a hidden ``/proc``, user) is given up when it has not
touched the file for :data:`SILENT_AFTER_S`. Taking,
stealing and releasing happen under a short ``flock``, so that two who see the same dead owner
cannot both inherit.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from toolkit.errors import BuildError
from toolkit.progress import Progress

SILENT_AFTER_S = 120.0
"""Age of the last sign of life after which an owner elsewhere counts as dead."""

HEARTBEAT_S = 5.0
POLL_S = 0.1
REMIND_S = 60.0
GUARD = ".guard"
"""File of every folder that has locks: held for the moment in which one changes hands."""

_PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Owner:
    """A process, told apart from every other one on any machine at any time."""

    pid: int
    host: str
    machine: str
    started: str
    token: str
    since: float

    @staticmethod
    def this_process() -> Owner:
        """The caller."""
        pid = os.getpid()
        return Owner(
            pid, platform.node(), _machine(), _start_time(pid) or "", uuid.uuid4().hex, time.time()
        )

    def describe(self) -> str:
        """For people: ``process 42 on host, for 35 s``."""
        return f"process {self.pid} on {self.host}, for {max(0, time.time() - self.since):.0f} s"


@dataclass(frozen=True)
class Lock:
    """The right to build one artifact, held from :func:`hold` until its end."""

    path: Path
    owner: Owner

    def still_held(self) -> bool:
        """False when somebody took this owner for dead, as after a long suspension."""
        current = _read(self.path)
        return current is not None and current.token == self.owner.token


@contextlib.contextmanager
def hold(path: Path, what: str, progress: Progress) -> Iterator[Lock]:
    """Own ``path`` for a while; waits for a live owner and says for whom."""
    owner = Owner.this_process()
    told = -REMIND_S
    while (other := _take(path, owner)) is not None:
        if time.monotonic() - told >= REMIND_S:
            progress.note(f"waiting for {what}: {other.describe()} builds it")
            told = time.monotonic()
        time.sleep(POLL_S)
    lock = Lock(path, owner)
    stop = threading.Event()
    beat = threading.Thread(target=_heartbeat, args=(path, stop), daemon=True, name="lock")
    beat.start()
    try:
        yield lock
    finally:
        stop.set()
        beat.join()
        with _guard(path):
            if lock.still_held():
                path.unlink(missing_ok=True)


def ensure_held(lock: Lock, what: str) -> None:
    """Raise when the lock was lost, before anything is published under it.

    Raises:
        BuildError: another process took over.
    """
    if not lock.still_held():
        raise BuildError(
            f"another process took over {what}",
            where=str(lock.path),
            hint="this one was silent for too long (suspended?); run the command again",
        )


def prepare(folder: Path) -> None:
    """Make sure that locks can be taken in ``folder``.

    Raises:
        OSError: they cannot.
    """
    (folder / GUARD).open("a").close()


def live_owner(path: Path) -> Owner | None:
    """Who holds ``path`` and is alive, if anybody."""
    with _guard(path):
        return _living(path)


def _living(path: Path) -> Owner | None:
    owner = _read(path)
    return owner if owner is not None and _alive(owner, path) else None


def _take(path: Path, owner: Owner) -> Owner | None:
    """None when ``owner`` has it now, else who has it."""
    with _guard(path):
        other = _living(path)
        if other is None:
            # Killed half-way through, it reads as nobody's, which is right.
            path.write_text(json.dumps(asdict(owner)))
        return other


def _heartbeat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)


@contextlib.contextmanager
def _guard(path: Path) -> Iterator[None]:
    guard = path.parent / GUARD
    with guard.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _alive(owner: Owner, path: Path) -> bool:
    if owner.machine == _machine() and not _hidden(owner.pid):
        return _start_time(owner.pid) == owner.started
    try:
        return time.time() - path.stat().st_mtime < SILENT_AFTER_S
    except FileNotFoundError:
        return False


def _machine() -> str:
    """This boot and this process-number space; two containers of a host differ."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return f"{boot.read_text().strip()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def _start_time(pid: int) -> str | None:
    """Clock ticks since boot at which ``pid`` began; None for one that is gone or a zombie."""
    try:
        stat = (_PROCESSES / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _hidden(pid: int) -> bool:
    """Whether ``pid`` runs but cannot be looked at: another user's, or a system without /proc."""
    if os.access(_PROCESSES / str(pid) / "stat", os.R_OK):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
