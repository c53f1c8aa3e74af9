"""``toolkit logs``: the end of a server's log, or its log as it grows."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.run_options import NameArgument, RunWorkspaceOption, locate


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs")(logs_command)


def logs_command(
    name: NameArgument = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as long as the server runs.")
    ] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines from the end.")] = 50,
    workspace: RunWorkspaceOption = None,
) -> None:
    """Show what the server and its supervisor wrote."""
    from toolkit.serving import logs, status

    root, chosen = locate(name, workspace)
    directory = status.find(root, chosen)
    for line in logs.tail(directory.log, lines):
        typer.echo(line)
    if follow:

        def ended() -> bool:
            state = directory.read()
            return state is None or not state.runs

        for line in logs.follow(directory.log, ended=ended):
            typer.echo(line)
