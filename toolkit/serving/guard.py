"""A small process between the supervisor and the server, so that nothing outlives either.

Run as a script, with the standard library only::

    python -I -S guard.py CONTROL_FD SHM_PREFIX CLEANUP -- COMMAND...

It starts the command in a process group of its own, tells its pid and its end on the control
socket (one JSON object a line), and takes the words ``term`` and ``kill`` from there. When the
socket closes, because the supervisor ended in whatever way, it kills the command. Whenever the
command has ended it kills every process that the command left behind, adopted ones included,
and removes the shared memory segments under its prefix: Triton leaves both behind when it is
killed. Should the guard itself be killed, the kernel kills the server (PR_SET_PDEATHSIG).
CLEANUP is a JSON list, a command to run at the end (or ``[]``): a container outlives its client.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SHARED_MEMORY = "/dev/shm"
_FORCE_SECONDS = 10.0
_CLEANUP_SECONDS = 60.0


def main(arguments: list[str]) -> int:
    """Guard one command until it has ended; the exit code says only that guarding worked."""
    control = socket.socket(fileno=int(arguments[0]))
    prefix, cleanup, command = arguments[1], json.loads(arguments[2]), arguments[4:]
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The supervisor decides when to stop; it hears the same signals or closes the socket.
        signal.signal(ignored, signal.SIG_IGN)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    pid = _spawn(command)
    _tell(control, {"event": "started", "pid": pid})
    ending = _watch(control, wake_read, pid)
    _kill_rest()
    _clean(cleanup)
    remove_segments(prefix)
    _tell(control, ending)
    return 0


def remove_segments(prefix: str) -> list[str]:
    """Remove the shared memory segments whose names begin with ``prefix``; returns the names."""
    removed: list[str] = []
    if not prefix or not os.path.isdir(SHARED_MEMORY):  # noqa: PTH112 - starts without pathlib
        return removed
    for name in os.listdir(SHARED_MEMORY):  # noqa: PTH208
        if name.startswith(prefix):
            with contextlib.suppress(OSError):
                os.unlink(f"{SHARED_MEMORY}/{name}")  # noqa: PTH108
                removed.append(name)
    return removed


def _clean(command: list[str]) -> None:
    """Run ``command`` (absolute path first) to its end; it is killed after a minute."""
    if not command:
        return
    pid = os.fork()
    if pid == 0:
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)  # its errors still reach the log
            os.execv(command[0], command)
        finally:
            os._exit(127)
    deadline = time.monotonic() + _CLEANUP_SECONDS
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _spawn(command: list[str]) -> int:
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # the guard died before the line above took effect
            os._exit(127)
        os.setpgid(0, 0)
        for changed in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(changed, signal.SIG_DFL)
        os.execv(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(127)


def _watch(control: socket.socket, wake: int, pid: int) -> dict[str, object]:
    """Wait for the command's end; obey the socket meanwhile."""
    listening = [control.fileno(), wake]
    while True:
        end = _reap(pid)
        if end is not None:
            return end
        ready, _, _ = select.select(listening, [], [])
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        if control.fileno() in ready:
            words = _receive(control)
            if not words:
                listening = [wake]
                _signal_group(pid, signal.SIGKILL)
            elif b"kill" in words:
                _signal_group(pid, signal.SIGKILL)
            elif b"term" in words:
                # Only the server itself: it ends its model processes after draining.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)


def _reap(pid: int) -> dict[str, object] | None:
    """Collect every ended child; the command's end is returned when it is among them."""
    found: dict[str, object] | None = None
    while True:
        try:
            ended, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if ended == 0:
            return found
        if ended == pid:
            killed = os.WIFSIGNALED(status)
            found = {
                "event": "exited",
                "code": None if killed else os.WEXITSTATUS(status),
                "signal": os.WTERMSIG(status) if killed else None,
                "peak_memory_bytes": usage.ru_maxrss * 1024,
            }


def _receive(control: socket.socket) -> bytes:
    try:
        return control.recv(4096)
    except OSError:
        return b""


def _tell(control: socket.socket, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        control.sendall(json.dumps(message).encode() + b"\n")


def _signal_group(pid: int, number: int) -> None:
    for send in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            send(pid, number)


def _kill_rest() -> None:
    """Kill what the command left: as subreaper the guard inherits all of its descendants."""
    deadline = time.monotonic() + _FORCE_SECONDS
    while time.monotonic() < deadline:
        rest = _descendants(os.getpid())
        if not rest:
            return
        for pid in rest:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        _reap(-1)
        time.sleep(0.01)


def _descendants(root: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                parent = int(stat.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    pending = [root]
    while pending:
        for child in children.get(pending.pop(), []):
            if child not in found:
                found.add(child)
                pending.append(child)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
