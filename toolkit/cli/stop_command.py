"""``toolkit stop``: let requests finish, then end the server."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.cli.options import JsonOption, QuietOption
from toolkit.cli.output import print_json
from toolkit.cli.progress import command_progress
from toolkit.cli.run_options import NameArgument, RunWorkspaceOption, locate


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("stop")(stop_command)


def stop_command(
    name: NameArgument = None,
    force: Annotated[
        bool, typer.Option("--force", help="Do not wait for requests in flight.")
    ] = False,
    workspace: RunWorkspaceOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Drain and stop a server; requests in flight have serving.drain_timeout to finish."""
    from toolkit.serving import deploy, status

    root, chosen = locate(name, workspace)
    directory = status.find(root, chosen)
    before = directory.read()
    was_running = before is not None and before.runs
    with command_progress(quiet=quiet or json) as progress:
        if was_running:
            progress.start(f"stopping {directory.name}")
        state = deploy.stop(directory, force=force)
        if was_running:
            progress.finish("stopped")
    if json:
        print_json(
            {
                "name": directory.name,
                "was_running": was_running,
                "status": state.status if state else None,
            }
        )
    elif not was_running:
        typer.echo(f"{directory.name} was not running")
