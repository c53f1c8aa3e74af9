"""The server's process as the supervisor sees it: start, signal, wait, and its output."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import ServerError
from toolkit.serving import guard

_START_SECONDS = 30.0
_CLEAN_SECONDS = 60.0


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended: an exit code or a signal, and the most memory it held."""

    code: int | None
    signal: int | None
    peak_memory_bytes: int = 0

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit code {self.code}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:
            name = str(self.signal)
        return f"signal {name}"


class ServerProcess:
    """A running server below its guard. Not thread-safe: one owner polls and signals.

    Args:
        command: Executable (absolute path) and arguments.
        env: The whole environment of the server.
        shm_prefix: Names of shared memory segments to remove at the end begin with this.
        sink: Receives the output, standard error included, in chunks, on a thread of its own.
        cleanup: Command that clears away what the server's end leaves (absolute path first).

    Raises:
        ServerError: the guard could not start it.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        shm_prefix: str,
        sink: Callable[[bytes], None],
        cwd: Path | None = None,
        cleanup: Sequence[str] = (),
    ) -> None:
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        try:
            self._guard = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", guard.__file__),
                    *(str(theirs.fileno()), shm_prefix, json.dumps([*cleanup]), "--", *command),
                ],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            os.close(read_end)
            ours.close()
            raise
        finally:
            os.close(write_end)
            theirs.close()
        self._control = ours
        self._shm_prefix = shm_prefix
        self._cleanup = [*cleanup]
        self._buffer = b""
        self._exit: ExitStatus | None = None
        self._pump = threading.Thread(
            target=_pump, args=(read_end, sink), name="server-output", daemon=True
        )
        self._pump.start()
        self.pid = self._await_start()

    @property
    def guard_pid(self) -> int:
        """Process id of the guard."""
        return self._guard.pid

    def poll(self) -> ExitStatus | None:
        """The end of the server once everything that it left has been cleared away."""
        while self._exit is None:
            message = self._next_message(0)
            if message is None:
                break
            if message["event"] == "exited":
                self._finish(
                    ExitStatus(message["code"], message["signal"], message["peak_memory_bytes"])
                )
            elif message["event"] == "gone":
                self._clear_after_guard()
        return self._exit

    def wait(self, timeout: float) -> ExitStatus | None:
        """Like :meth:`poll`, after waiting at most ``timeout`` seconds for the end."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            select.select([self._control], [], [], min(left, 1.0))
        return self._exit

    def terminate(self) -> None:
        """Ask the server to drain and end."""
        self._say(b"term\n")

    def kill(self) -> None:
        """Kill the server and everything it started."""
        self._say(b"kill\n")

    def close(self) -> None:
        """Kill what still runs; returns when nothing is left."""
        if self._exit is None:
            self.kill()
            if self.wait(20.0) is None:
                self._clear_after_guard()
        self._control.close()

    def _say(self, word: bytes) -> None:
        if self._exit is None:
            with contextlib.suppress(OSError):
                self._control.sendall(word)

    def _await_start(self) -> int:
        message = self._next_message(_START_SECONDS)
        if message is None or message["event"] != "started":
            self._guard.kill()
            self._guard.wait()
            self._control.close()
            raise ServerError("the server's guard process did not start")
        return int(message["pid"])

    def _next_message(self, timeout: float) -> dict[str, Any] | None:
        """The next message of the guard; ``{"event": "gone"}`` when it died without one."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([self._control], [], [], left)
            if not readable:
                return None
            try:
                data = self._control.recv(4096)
            except OSError:
                data = b""
            if not data:
                return {"event": "gone"}
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _finish(self, status: ExitStatus) -> None:
        self._exit = status
        self._guard.wait()
        self._pump.join(timeout=5.0)

    def _clear_after_guard(self) -> None:
        """The guard died: the kernel kills the server, its model processes are ours to kill."""
        self._guard.kill()
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        clean(self._cleanup)
        guard.remove_segments(self._shm_prefix)
        self._finish(ExitStatus(None, signal.SIGKILL))


def clean(command: Sequence[str]) -> None:
    """Run a cleanup command of a server whose guard cannot do it any more."""
    if command:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, check=False, timeout=_CLEAN_SECONDS)


def _pump(read_end: int, sink: Callable[[bytes], None]) -> None:
    with open(read_end, "rb", buffering=0) as pipe:
        while chunk := pipe.read(65536):
            # Read on whatever becomes of it: the server would stop at a pipe that is full.
            with contextlib.suppress(OSError):
                sink(chunk)
