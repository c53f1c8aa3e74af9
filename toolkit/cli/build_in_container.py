"""``toolkit build FILE --where container``: pass the command line on to the release's image."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import typer

from toolkit.cli.output import print_json
from toolkit.cli.progress import command_progress
from toolkit.spec.models import Deployment


def build_in_container(
    file: Path,
    deployment: Deployment,
    workspace: Path,
    overrides: list[str],
    output: Path | None,
    *,
    dry_run: bool,
    offline: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Build in the container, or only tell the commands; ends with the inner build's exit code."""
    from toolkit.pipeline import container_build

    build = container_build.ContainerBuild(
        file=file,
        deployment=deployment,
        workspace=workspace,
        output=output,
        options=_options(overrides, offline=offline, quiet=quiet),
        offline=offline,
        terminal=sys.stdout.isatty() and not json,
        json=json,
    )
    if dry_run:
        _tell(container_build.plan(build), json=json)
        return
    with command_progress(quiet=quiet) as progress:
        code = container_build.run(build, progress=progress)
    raise typer.Exit(code)


def _options(overrides: list[str], *, offline: bool, quiet: bool) -> tuple[str, ...]:
    """What the inner command line needs of ours."""
    words = [word for each in overrides for word in ("--set", each)]
    for flag, given in (("--offline", offline), ("--quiet", quiet)):
        words += [flag] if given else []
    return tuple(words)


def _tell(commands: list[list[str]], *, json: bool) -> None:
    if json:
        print_json({"dry_run": True, "where": "container", "commands": commands})
        return
    for words in commands:
        typer.echo(f"{shlex.join(words)}\n")
