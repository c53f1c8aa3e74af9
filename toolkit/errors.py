"""The few exception types a user can meet, each with the exit code a CI step sees.

Every error says what went wrong in one line, where (a file and line, a field, a URL),
and what to do about it. The command line prints exactly that; a traceback needs ``--debug``.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

_OF_THE_MACHINE = frozenset(
    {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EMFILE}
)


class ToolkitError(Exception):
    """Base of everything the toolkit raises on purpose.

    Args:
        message: One line, what is wrong.
        where: The place it comes from, such as ``deploy.yaml:12:5`` or ``engine.limits``.
        hint: What to change or which command to run.
        details: Further lines, for example the end of a log.
    """

    exit_code = 1
    kind = "error"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint
        self.details = tuple(details)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class SpecError(ToolkitError):
    """The deployment file, a flag or another input is wrong."""

    exit_code = 2
    kind = "invalid input"


class UnsupportedError(ToolkitError):
    """Each input is valid, but this combination cannot work."""

    exit_code = 2
    kind = "unsupported"


class EnvironmentError_(ToolkitError):
    """The machine lacks something: a driver, disk space, a library, a tool, a network."""

    exit_code = 3
    kind = "environment"


class BuildError(ToolkitError):
    """A build step failed; ``details`` ends its log and names the full one."""

    exit_code = 4
    kind = "build failed"


class ValidationFailed(ToolkitError):
    """A check of an artifact or of a running server did not pass."""

    exit_code = 5
    kind = "validation failed"


class ServerError(ToolkitError):
    """The inference server did not start, died, or did not answer."""

    exit_code = 6
    kind = "server"


class Undecided(ToolkitError):
    """A measurement is too noisy or too short for the verdict that was asked of it."""

    exit_code = 7
    kind = "undecided"


def is_of_the_machine(error: OSError) -> bool:
    """Whether the machine's rights or disks are in the way: no bug, and no mistake in a file."""
    return error.errno in _OF_THE_MACHINE
