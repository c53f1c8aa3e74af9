"""``toolkit gateway FILE...``: the OpenAI-compatible API in front of Tritons that run already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.options import SetOption, WorkspaceOption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolkit.gateway.plan import ModelPlan
    from toolkit.spec.gateway import Gateway
    from toolkit.spec.models import Deployment


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gateway")(gateway_command)


def gateway_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Deployment files; each is a model to serve. A fleet file stands for its models.",
        ),
    ],
    set_: SetOption = None,
    replica: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PORT[/PORT]",
            help="A Triton's gRPC and metrics ports, instead of the one deployed from here.",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Tokenizer and chat template, if not built here.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Instead of gateway.host.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Instead of gateway.port.", min=1, max=65535)
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Serve the OpenAI API for FILEs until Ctrl-C; `toolkit deploy` starts one by itself.

    The first FILE's gateway section counts, a fleet's before its models'. A line of JSON a
    request goes to standard output.
    """
    from toolkit.errors import SpecError
    from toolkit.gateway import server
    from toolkit.gateway.plan import join
    from toolkit.pipeline.beside import check_files
    from toolkit.workspace import default_root

    named, gateway = _deployments(files, set_ or ())
    if len(named) > 1 and (replica or tokenizer):
        raise SpecError(
            "--replica and --tokenizer are for one model",
            where="--replica" if replica else "--tokenizer",
            hint="name the replicas of each in its gateway.replicas",
        )
    gateway = _with_options(gateway, {"host": host, "port": port, "replicas": replica})
    models = [
        _model(deployment, workspace or default_root(file), tuple(replica or ()), tokenizer)
        for file, deployment in named
    ]
    check_files(gateway)
    plan = join(models, gateway)
    scheme = "https" if gateway.tls else "http"
    names = ", ".join(each.name for each in models)
    typer.echo(f"serving {names} at {scheme}://{gateway.host}:{gateway.port}/v1", err=True)
    server.run(plan)


def _with_options(gateway: Gateway, options: Mapping[str, object]) -> Gateway:
    """``gateway`` with what the command line says instead, judged like the file's own."""
    from pydantic import ValidationError

    from toolkit.errors import SpecError
    from toolkit.spec.gateway import Gateway

    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Gateway.model_validate({**gateway.model_dump(), **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "host"
        raise SpecError(
            first["msg"],
            where=f"--{field.removesuffix('s')}",
            hint=first.get("ctx", {}).get("hint"),
        ) from None


def _deployments(
    files: Sequence[Path], overrides: Sequence[str]
) -> tuple[list[tuple[Path, Deployment]], Gateway]:
    """The deployments of all files, those of fleets among them, and the gateway that counts."""
    from toolkit.spec.fleet import is_fleet, load_fleet
    from toolkit.spec.loading import load

    named: list[tuple[Path, Deployment]] = []
    gateways = []
    for file in files:
        if is_fleet(file):
            fleet = load_fleet(file, overrides=overrides)
            named += [(each.path, each.deployment) for each in fleet.members]
            gateways.append(fleet.gateway)
        else:
            deployment = load(file, overrides=overrides).resolved()
            named.append((file, deployment))
            gateways.append(deployment.gateway)
    return named, gateways[0]


def _model(
    deployment: Deployment, root: Path, replicas: tuple[str, ...], tokenizer: Path | None
) -> ModelPlan:
    from toolkit.errors import SpecError
    from toolkit.gateway.plan import plan_model
    from toolkit.pipeline.beside import tokenizer_of
    from toolkit.serving.state import ENDED, RunDirectory

    state = RunDirectory(root, deployment.name).read()
    running = state is not None and state.status not in ENDED and state.alive
    if not replicas and not deployment.gateway.replicas and state is not None and running:
        ends = state.endpoints
        replicas = (f"{ends.grpc_url}/{ends.metrics}",)
    if not replicas and not deployment.gateway.replicas:
        raise SpecError(
            f"no Triton is known that serves {deployment.name}",
            where="gateway.replicas",
            hint="toolkit deploy FILE first, or name one: --replica HOST:8001/8002",
        )
    if tokenizer is None and state is None:
        raise SpecError(
            f"{deployment.name} was not deployed from here, so its tokenizer is not known",
            hint="name its folder: --tokenizer DIR",
        )
    folder = tokenizer or tokenizer_of(Path(state.repository if state else ""))
    return plan_model(deployment, folder, replicas)
