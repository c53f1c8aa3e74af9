"""How an error reaches the user: what, where, what to do; then the details."""

from __future__ import annotations

import json
import shlex
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from toolkit.errors import EnvironmentError_, ToolkitError, is_of_the_machine

USAGE = 2


@dataclass(frozen=True)
class Failure:
    """An error as it is printed: the fields of :class:`toolkit.errors.ToolkitError`."""

    exit_code: int
    kind: str
    message: str
    where: str | None = None
    hint: str | None = None
    details: tuple[str, ...] = ()


def report(error: Exception, arguments: Sequence[str], *, debug: bool) -> int:
    """Print ``error`` on stderr and return its exit code.

    With ``--json`` among the arguments the error is one line of JSON, the last one on stderr;
    stdout stays what the command itself printed.
    """
    failure = describe(error, arguments)
    if debug:
        traceback.print_exception(error)
    if "--json" in arguments:
        print(json.dumps({"error": failure.__dict__}), file=sys.stderr)  # noqa: T201
    elif failure.message:
        _print(failure)
    return failure.exit_code


def describe(error: Exception, arguments: Sequence[str]) -> Failure:
    """What there is to say about any exception."""
    if isinstance(error, ToolkitError):
        return Failure(
            error.exit_code, error.kind, error.message, error.where, error.hint, error.details
        )
    if isinstance(error, typer.TyperException):
        return _usage(error)
    if isinstance(error, typer.Abort):
        return Failure(1, "aborted", "aborted")
    if isinstance(error, OSError) and is_of_the_machine(error):
        return _of_the_machine(error)
    return _bug(error, arguments)


def _of_the_machine(error: OSError) -> Failure:
    """A read-only directory, a full disk: no bug, wherever it is met."""
    return Failure(
        EnvironmentError_.exit_code,
        EnvironmentError_.kind,
        f"a file cannot be written or read: {error.strerror}",
        str(error.filename) if error.filename else None,
        "TOOLKIT_WORKSPACE and TOOLKIT_CACHE choose other directories, --output where a command "
        "has it",
    )


def _usage(error: typer.TyperException) -> Failure:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "toolkit"
    message = str(getattr(error, "format_message", error.__str__)()).replace("Value error, ", "")
    return Failure(USAGE, "usage", message, hint=f"see {command} --help" if message else None)


def _bug(error: Exception, arguments: Sequence[str]) -> Failure:
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f"{place[0].filename}:{place[0].lineno}" if place else None
    saved = _save_traceback(error)
    again = shlex.join(["toolkit", "--debug", *arguments])
    return Failure(
        1,
        "bug",
        f"{type(error).__name__}: {error} (this is a bug in the toolkit)",
        where,
        f"report it with the traceback: {saved}" if saved else f"for the traceback: {again}",
    )


def _save_traceback(error: Exception) -> Path | None:
    """Keep the traceback, because a build of an hour is not run again just to see it."""
    from toolkit.workspace.places import user_cache_path

    path = user_cache_path() / "last-traceback.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)))
    except OSError:
        return None
    return path


def _print(failure: Failure) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), failure.message))
    if failure.where:
        console.print(Text.assemble(("   at: ", "dim"), failure.where))
    if failure.hint:
        console.print(Text.assemble((" hint: ", "cyan"), failure.hint))
    for line in failure.details:
        console.print(Text(f"   | {line}", style="dim"))
