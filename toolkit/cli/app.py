"""The Typer application, and what every command shares: global options, errors, exit codes."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from toolkit import __version__
from toolkit.cli.registry import COMMANDS, Command

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

_CONTINUING = frozenset({"build", "deploy", "checkpoint", "quantize", "server"})
"""Commands that find what an interrupted run of theirs finished."""

BROKEN_PIPE = 141
"""Exit code when the reader of our output went away: 128 + SIGPIPE."""


class LazyGroup(TyperGroup):
    """Lists every command by its summary, imports only the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for command in COMMANDS:
            self.add_command(_listing(command))

    def resolve_command(
        self, ctx: Any, args: list[str]
    ) -> tuple[str | None, Any | None, list[str]]:
        """Click's hook between parsing and running a subcommand."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and _load(found.name), rest


def _listing(command: Command) -> TyperCommand:
    return TyperCommand(
        name=command.name, help=command.summary, rich_help_panel=command.panel, callback=None
    )


def _load(name: str | None) -> Any:
    command = next(command for command in COMMANDS if command.name == name)
    module = importlib.import_module(f"toolkit.cli.{command.module}")
    part = typer.Typer()
    module.register(part)
    return get_group(part).commands[command.name]


app = typer.Typer(
    cls=LazyGroup,
    name="toolkit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"toolkit {__version__}")
        raise typer.Exit


@app.callback()
def _toolkit(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (TOOLKIT_DEBUG=1).")
    ] = False,
) -> None:
    """From one deployment file to a quantized, compiled, validated LLM on Triton.

    Start with `toolkit init`, then `toolkit deploy FILE`.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; prints errors, raises none.

    Exit codes: 0 fine, 1 a bug, 2 wrong usage, input or combination, 3 environment, 4 build,
    5 validation, 6 server, 7 undecided, 130 interrupted.
    """
    debug = "--debug" in arguments or bool(os.environ.get("TOOLKIT_DEBUG"))
    words = [word for word in arguments if word != "--debug"]
    _end_on_sigterm()
    try:
        result = get_command(app).main(args=words, prog_name="toolkit", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered has no reader either; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        result = INTERRUPTED
    except Exception as error:
        from toolkit.cli.failure import report

        return report(error, words, debug=debug)
    code = result if isinstance(result, int) else 0
    if code == INTERRUPTED:
        goes_on = any(word in _CONTINUING for word in words[:1])
        more = "; the same command continues from what is finished" if goes_on else ""
        typer.echo(f"interrupted{more}", err=True)
    return code


def _end_on_sigterm() -> None:
    """Turn SIGTERM into an exception, so that locks and half-written files are cleaned up."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
