"""What the checks ask the machine: commands, files, limits. Tests answer in its place."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def problem(self) -> str:
        """The last line of what it complained of."""
        lines = (self.error.strip() or self.out.strip()).splitlines()
        return lines[-1] if lines else f"exit code {self.code}"


class Machine:
    """This machine. Reading only: no method changes anything."""

    @property
    def environ(self) -> Mapping[str, str]:
        return os.environ

    def which(self, program: str) -> str | None:
        """Where ``program`` is, if it is on PATH."""
        return shutil.which(program)

    def run(self, *words: str) -> Answer | None:
        """A command's answer; None if its program is not here, code 124 if it hangs."""
        program = self.which(words[0])
        if program is None:
            return None
        try:
            done = subprocess.run(
                [program, *words[1:]],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=_ANSWER_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return Answer(124, "", f"{words[0]} did not answer within {_ANSWER_SECONDS:g} s")
        except OSError as error:
            return Answer(126, "", str(error))
        return Answer(done.returncode, done.stdout, done.stderr)

    def text(self, path: str) -> str | None:
        """The contents of a small file; None if it cannot be read."""
        try:
            return Path(path).read_text(errors="replace")
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """Whether there is such a file or directory."""
        return Path(path).exists()

    def names(self, directory: str) -> tuple[str, ...]:
        """Names in a directory; none if it is not there."""
        try:
            return tuple(sorted(entry.name for entry in Path(directory).iterdir()))
        except OSError:
            return ()

    def free_bytes(self, path: Path) -> int:
        """Free space where ``path`` is or would be."""
        return shutil.disk_usage(_existing(path)).free

    def writable(self, path: Path) -> bool:
        """Whether ``path`` could be written or made."""
        return os.access(_existing(path), os.W_OK)

    def total_bytes(self, path: Path) -> int:
        """Size of the file system where ``path`` is or would be."""
        return shutil.disk_usage(_existing(path)).total

    def limit(self, kind: int) -> int | None:
        """The soft limit of a ``resource.RLIMIT_*``; None for unlimited."""
        soft, _ = resource.getrlimit(kind)
        return None if soft == resource.RLIM_INFINITY else soft

    def cores(self) -> int:
        """Processor cores that this process may use."""
        return len(os.sched_getaffinity(0))


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
