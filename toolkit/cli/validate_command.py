"""``toolkit validate FILE``: check a running server; the CI gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.options import FileArgument, JsonOption, QuietOption, SetOption, WorkspaceOption
from toolkit.cli.output import print_json, print_table
from toolkit.cli.progress import command_progress

if TYPE_CHECKING:
    from toolkit.serving.state import RunState
    from toolkit.serving.validate import ValidationReport
    from toolkit.spec.models import Deployment

_MARKS = {"passed": "passed", "failed": "FAILED", "skipped": "skipped"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("validate")(validate_command)


def validate_command(
    file: FileArgument,
    set_: SetOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="CHECK", help="Run just this check; may be repeated."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="A server that was not deployed from here.", show_default=False),
    ] = None,
    http_port: Annotated[int, typer.Option(help="With --host.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="With --host.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="With --host.")] = 8002,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", metavar="PATH", help="Also write JUnit XML.", show_default=False),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Prove on the running server that it does what FILE promises; exit code 5 if it does not."""
    from toolkit.pipeline.references import standard_of
    from toolkit.serving.ports import Endpoints
    from toolkit.serving.validate import CHECKS, validate_live, write_junit
    from toolkit.spec.loading import load
    from toolkit.workspace import default_root

    deployment = load(file, overrides=set_ or ()).resolved()
    _known(only or [], [check.name for check in CHECKS])
    root = workspace or default_root(file)
    if host:
        endpoints, repository = Endpoints(host, http_port, grpc_port, metrics_port), None
    else:
        state = _running(root, deployment.name)
        _same_build(deployment, root, state)
        endpoints, repository = state.endpoints, Path(state.repository)
    with command_progress(quiet=quiet) as progress:
        report = validate_live(
            endpoints,
            deployment,
            progress=progress,
            only=frozenset(only) if only else None,
            repository=repository,
            **vars(standard_of(deployment, repository)),
        )
    if junit:
        write_junit(report, junit)
    if json:
        print_json(report.as_json())
    else:
        print_report(report)
    report.raise_if_failed()


def print_report(report: ValidationReport) -> None:
    """The results as a table."""
    print_table(
        f"{report.name} at {report.url}",
        ("check", "result", "seconds", "evidence"),
        (
            (each.name, _MARKS[each.outcome], f"{each.seconds:.1f}", each.evidence)
            for each in report.results
        ),
        right="seconds",
    )


def _running(root: Path, name: str) -> RunState:
    from toolkit.errors import ServerError
    from toolkit.serving import status

    found = status.read_status(status.find(root, name))
    if found is None or found.status != "ready":
        raise ServerError(
            f"{name} is not running ({found.status if found else 'never deployed'})",
            where=str(root),
            hint="toolkit deploy FILE, or name another server with --host",
        )
    return found.state


def _same_build(deployment: Deployment, root: Path, state: RunState) -> None:
    """A server of the same name may have been deployed from another file.

    Raises:
        ValidationFailed: it was.
    """
    from toolkit.errors import ValidationFailed
    from toolkit.pipeline.expected import is_another_build
    from toolkit.workspace import Workspace

    if is_another_build(deployment, Workspace(root), state.repository_digest):
        raise ValidationFailed(
            f"the {deployment.name} that runs was built from another file, or with other settings",
            where=state.endpoints.http_url,
            hint="toolkit deploy FILE --replace, or validate with the file and the --set it was "
            "deployed with",
        )


def _known(chosen: list[str], names: list[str]) -> None:
    from toolkit.errors import SpecError

    for name in chosen:
        if name not in names:
            raise SpecError(
                f"there is no check {name!r}", where="--only", hint=f"checks: {', '.join(names)}"
            )
