"""``toolkit deploy FILE``: build what is missing, launch Triton, prove that it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.options import (
    DraftConfigOption,
    FileArgument,
    JsonOption,
    ModelConfigOption,
    OfflineOption,
    QuietOption,
    SetOption,
    WorkspaceOption,
)
from toolkit.cli.output import print_json, print_table
from toolkit.cli.progress import command_progress

if TYPE_CHECKING:
    from pathlib import Path

    from toolkit.progress import Progress
    from toolkit.serving.deploy import RunningServer
    from toolkit.serving.launch import LaunchPlan
    from toolkit.serving.ports import Endpoints
    from toolkit.serving.validate import ValidationReport
    from toolkit.spec.models import Deployment
    from toolkit.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("deploy")(deploy_command)


def deploy_command(
    file: FileArgument,
    set_: SetOption = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, show the log, stop with Ctrl-C.")
    ] = False,
    validate: Annotated[
        bool, typer.Option(help="Check the server live before calling it up.")
    ] = True,
    replace: Annotated[
        bool, typer.Option("--replace", help="Stop another build of the same name first.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server running if validation fails.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print every command and file instead; touch nothing."),
    ] = False,
    model_config: ModelConfigOption = None,
    draft_config: DraftConfigOption = None,
    offline: OfflineOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Build what is missing of FILE, launch Triton, wait until it is ready, validate it.

    The server goes on in the background under a supervisor that restarts it after a crash.
    """
    from toolkit.errors import SpecError
    from toolkit.spec.loading import load
    from toolkit.workspace import Workspace, default_root

    if foreground and json and not dry_run:
        raise SpecError(
            "--foreground shows the server's log on stdout, where --json allows nothing else",
            where="--json",
            hint="leave out one of them; toolkit status --json tells the rest",
        )
    deployment = load(file, overrides=set_ or ()).resolved()
    store = Workspace(workspace or default_root(file))
    if dry_run:
        from toolkit.cli.deploy_dry_run import show
        from toolkit.pipeline import Configs

        show(deployment, store, Configs(model_config, draft_config), json=json)
        return
    from toolkit.serving import deploy
    from toolkit.serving.foresee import check_ports

    check_ports(deployment, store.root)
    with command_progress(quiet=quiet) as progress:
        plan = _plan(deployment, store, offline, progress)
        if foreground:
            _stay(deployment, plan, store, replace, validate, progress)
            return
        server = deploy.start(plan, store.root, progress=progress, replace=replace)
        report = _prove(deployment, plan, server, progress) if validate else None
        stops = report is not None and not (report.passed or keep or server.reused)
        if stops:
            server.stop()
    _print(server, report, json)
    if report is not None:
        _judge(report, store.root, stopped=stops)


def _plan(
    deployment: Deployment, store: Workspace, offline: bool, progress: Progress
) -> LaunchPlan:
    from toolkit.pipeline import build
    from toolkit.pipeline.beside import with_gateway
    from toolkit.serving import deploy

    built = build(deployment, store, progress=progress, offline=offline)
    artifact = built.artifact("repository")
    plan = deploy.prepare(
        deployment,
        built.repository,
        runtime=built.runtime,
        progress=progress,
        digest=artifact.key if artifact else None,
        offline=offline,
    )
    return with_gateway(plan, deployment, store.root)


def _prove(
    deployment: Deployment, plan: LaunchPlan, server: RunningServer, progress: Progress
) -> ValidationReport:
    from toolkit.workspace import root_option

    try:
        return _validate(deployment, plan, server.endpoints, progress)
    except KeyboardInterrupt:
        at = root_option(server.log.parents[2])
        typer.echo(
            f"the server of {server.name} goes on, unproven; to end it: "
            f"toolkit stop {server.name}{at}",
            err=True,
        )
        raise


def _judge(report: ValidationReport, root: Path, *, stopped: bool) -> None:
    """Exit code 5 with what became of the server, and where else to look for the reason."""
    from toolkit.errors import ValidationFailed
    from toolkit.workspace import root_option

    try:
        report.raise_if_failed()
    except ValidationFailed as error:
        fate = "the server was stopped (--keep leaves it)" if stopped else "the server goes on"
        verify = f"toolkit artifacts verify{root_option(root)}"
        raise ValidationFailed(
            error.message,
            where=error.where,
            hint=error.hint,
            details=(*error.details, fate, f"damaged files of earlier builds: {verify}"),
        ) from error


def _validate(
    deployment: Deployment, plan: LaunchPlan, endpoints: Endpoints, progress: Progress
) -> ValidationReport:
    from toolkit.pipeline.references import standard_of
    from toolkit.serving.validate import QUICK, validate_live

    standard = standard_of(deployment, plan.repository)
    return validate_live(endpoints, deployment, progress=progress, only=QUICK, **vars(standard))


def _stay(
    deployment: Deployment,
    plan: LaunchPlan,
    store: Workspace,
    replace: bool,
    validate: bool,
    progress: Progress,
) -> None:
    from toolkit.serving.deploy import failure
    from toolkit.serving.foreground import run_foreground
    from toolkit.serving.state import RunDirectory, RunState

    reports: list[ValidationReport] = []

    def check(state: RunState) -> bool:
        report = _validate(deployment, plan, state.endpoints, progress)
        present = RunDirectory(store.root, plan.name).read()
        if present is None or present.status != "ready":
            return True  # it was stopped meanwhile: what failed then says nothing
        reports.append(report)
        return report.passed

    state = run_foreground(plan, store.root, replace=replace, on_ready=check if validate else None)
    if state.status == "failed":
        raise failure(state)
    for report in reports:
        report.raise_if_failed()


def _print(server: RunningServer, report: ValidationReport | None, json: bool) -> None:
    from toolkit.workspace import root_option

    if json:
        print_json(_as_json(server, report))
        return
    if report is not None:
        from toolkit.cli.validate_command import print_report

        print_report(report)
    if report is not None and not report.passed:
        return
    gateway = server.companion_url
    print_table(
        f"{server.name}: {'was running already' if server.reused else 'running'}",
        ("what", "where"),
        (
            ("HTTP", server.http_url),
            ("gRPC", server.grpc_url),
            ("metrics", server.metrics_url),
            *([("OpenAI API", f"{gateway}/v1")] if gateway else []),
            ("log", server.log),
        ),
    )
    at = root_option(server.log.parents[2])
    typer.echo(
        f"try:  curl -s {server.http_url}/v2/models/{server.name}/generate "
        """-d '{"text_input": "The capital of France is", "max_tokens": 16}'\n"""
        f"then: toolkit status{at}, toolkit logs -f {server.name}{at}, "
        f"toolkit stop {server.name}{at}"
    )


def _as_json(server: RunningServer, report: ValidationReport | None) -> dict[str, Any]:
    state = server.state()
    return {
        "name": server.name,
        "status": state.status,
        "reused": server.reused,
        "start_seconds": state.start_seconds,
        "http": server.http_url,
        "grpc": server.grpc_url,
        "metrics": server.metrics_url,
        "gateway": server.companion_url or None,
        "log": str(server.log),
        "validation": report.as_json() if report else None,
    }
