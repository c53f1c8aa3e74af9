"""``toolkit server``: install and find the Triton server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from toolkit.cli.options import JsonOption, QuietOption
from toolkit.cli.output import print_json, print_table
from toolkit.cli.progress import command_progress


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="Install and find the Triton server.")
    group.command("install")(install_command)
    group.command("info")(info)
    app.add_typer(group, name="server")


def install_command(
    force: Annotated[bool, typer.Option("--force", help="Install again what is there.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Install the server of the PyPI package nvidia-pytriton into the user's cache.

    Needs no root and touches nothing else; `deploy` does it by itself when it is needed.
    """
    from toolkit.serving import install, preflight

    with command_progress(quiet=quiet) as progress:
        binary = install.install_server(progress, force=force)
    preflight.check(binary, "auto")
    if json:
        print_json(_as_json(binary))
    else:
        typer.echo(binary.executable)


def info(json: JsonOption = False) -> None:
    """Tell which server would be used, and whether it can work here."""
    from toolkit.errors import EnvironmentError_
    from toolkit.serving import install, preflight

    binary = install.find_server()
    if binary is None:
        raise EnvironmentError_("no tritonserver was found", hint="toolkit server install")
    problem = None
    try:
        preflight.check(binary, "openvino")
    except EnvironmentError_ as error:
        problem = error
    if json:
        print_json({**_as_json(binary), "problem": problem.message if problem else None})
    else:
        rows = [*_as_json(binary).items(), ("CPU runtime", "cannot run" if problem else "can run")]
        print_table("", ("what", "value"), rows)
    if problem:
        raise problem


def _as_json(binary: Any) -> dict[str, Any]:
    from toolkit.serving.install import TRITON_VERSION, python_version

    return {
        "executable": str(binary.executable),
        "backends": str(binary.backends),
        "found by": binary.origin,
        "version": TRITON_VERSION if binary.origin == "installed" else None,
        "python": python_version(),
    }
