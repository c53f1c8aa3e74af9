"""``toolkit observe FILE``: what Prometheus and Grafana need to watch a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import FileArgument, JsonOption, SetOption, WorkspaceOption
from toolkit.cli.output import print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("observe")(observe_command)


def observe_command(
    file: FileArgument,
    set_: SetOption = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the files go.")
    ] = Path("observe"),
    objective: Annotated[
        float,
        typer.Option(help="Share of requests that has to be good.", min=0.5, max=0.99999),
    ] = 0.99,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Write scrape configuration, alert rules with their tests, and a Grafana dashboard.

    `promtool test rules alerts_test.yml` proves the rules.
    """
    from toolkit.gateway.observe import Watching, render
    from toolkit.serving.state import RunDirectory
    from toolkit.spec.loading import load
    from toolkit.workspace import default_root

    deployment = load(file, overrides=set_ or ()).deployment
    state = RunDirectory(workspace or default_root(file), deployment.name).read()
    ports, tls = deployment.serving.ports, deployment.gateway.tls
    gateway = _at(deployment.gateway.host, deployment.gateway.port)
    metrics = _at(deployment.serving.host, ports.metrics)
    if state is not None and state.metrics_port:
        metrics = _at(state.host, state.metrics_port)
        gateway = state.companion_url.partition("://")[2] or gateway
    others = [address for address in deployment.gateway.replicas if "/" in address]
    servers = [f"{each.rpartition(':')[0]}:{each.rpartition('/')[2]}" for each in others]
    watching = Watching(
        deployment.name,
        [gateway],
        [metrics, *servers],
        objective,
        Path(tls.certificate).absolute() if tls else None,
    )
    written = render(watching, output)
    if json:
        print_json([str(path) for path in written])
        return
    for path in written:
        typer.echo(path)


def _at(host: str, port: int) -> str:
    """An address that can be asked: one that is listened on may stand for all of a machine's."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
