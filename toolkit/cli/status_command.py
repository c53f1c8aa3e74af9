"""``toolkit status``: what runs and how it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from toolkit.cli.options import JsonOption
from toolkit.cli.output import counted, print_json, print_table
from toolkit.cli.run_options import NameArgument, RunWorkspaceOption, locate
from toolkit.spec.units import format_duration

if TYPE_CHECKING:
    from toolkit.serving.status import ServerStatus


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status_command)


def status_command(
    name: NameArgument = None, workspace: RunWorkspaceOption = None, json: JsonOption = False
) -> None:
    """Tell which servers run, where, how busy they are and how often they were restarted."""
    from toolkit.serving import status

    root, chosen = locate(name, workspace)
    if chosen is None:
        found = status.all_status(root)
    else:
        one = status.read_status(status.find(root, chosen))
        found = [one] if one else []
    if json:
        print_json([each.as_json() for each in found])
        return
    print_table(
        f"{counted(len(found), 'deployment')} in {root}",
        ("name", "status", "up", "HTTP", "gRPC", "running", "waiting", "KV cache", "restarts"),
        (_row(each) for each in found),
        right="running,waiting,KV cache,restarts",
    )
    for each in found:
        for line in _remarks(each):
            typer.echo(f"{each.state.name}: {line}")


def _row(status: ServerStatus) -> tuple[str, ...]:
    load, state = status.load, status.state
    use = load.kv_cache_use if load else None
    return (
        state.name,
        status.status,
        "-" if status.uptime_s is None else format_duration(status.uptime_s),
        state.endpoints.http_url if state.http_port else "-",
        state.endpoints.grpc_url if state.grpc_port else "-",
        _number(load.running if load else None),
        _number(load.waiting if load else None),
        "-" if use is None else f"{use:.0%}",
        str(len(state.restarts)),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _remarks(status: ServerStatus) -> list[str]:
    state = status.state
    lines = []
    if state.detail:
        lines.append(state.detail)
    if state.restarts:
        last = state.restarts[-1]
        took = "" if last.downtime_s is None else f", back after {last.downtime_s:.1f} s"
        lines.append(f"last restart at {last.at}: {last.reason}{took}")
    if state.kv_cache_scale < 1:
        lines.append(f"serves with {state.kv_cache_scale:.0%} of its KV cache, for want of memory")
    if status.status == "dead":
        lines.append("its supervisor has vanished; deploy again")
    return lines
