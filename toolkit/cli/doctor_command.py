"""``toolkit doctor [FILE]``: what this machine lacks, and how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.options import JsonOption, SetOption, WorkspaceOption
from toolkit.cli.output import print_json, print_table

if TYPE_CHECKING:
    from toolkit.doctor import Report

OptionalFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE]",
        help="A deployment file: check only what it needs, and fail if that is missing.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor_command)


def doctor_command(
    file: OptionalFile = None,
    set_: SetOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Check driver, GPUs, links, memory, disk, container engine and packages; say what to mend.

    With FILE the exit code is 3 if something that it needs is missing. Nothing is changed.
    """
    from toolkit.doctor import examine
    from toolkit.errors import EnvironmentError_
    from toolkit.spec.loading import load
    from toolkit.workspace import default_root

    deployment = load(file, overrides=set_ or ()).resolved() if file else None
    report = examine(deployment, workspace=workspace or default_root(file))
    if json:
        print_json(report.as_json())
    else:
        _print(report)
    if deployment is not None and report.failed:
        first = report.failed[0]
        raise EnvironmentError_(
            f"this machine cannot serve {deployment.name}: {first.detail}",
            where=first.name,
            hint=first.mend or None,
            details=[f"{each.name}: {each.detail}" for each in report.failed[1:]],
        )


def _print(report: Report) -> None:
    title = f"what {report.deployment} needs" if report.deployment else "this machine"
    print_table(
        title,
        ("check", "", "found"),
        ((each.name, each.status, each.detail) for each in report.findings),
    )
    for each in report.findings:
        if each.mend and each.status in ("warn", "fail"):
            typer.echo(f"{each.status}  {each.name}: {each.mend}")
    typer.echo(f"runtimes that can serve here: {', '.join(report.can_serve)}")
