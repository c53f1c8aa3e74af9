"""``toolkit top``: what deployments are doing, live or for one window."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.options import JsonOption
from toolkit.cli.run_options import RunWorkspaceOption, locate

if TYPE_CHECKING:
    from toolkit.gateway.watch import Reading, Target, View

_LIVE = 1.0
_ONCE = 2.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("top")(top_command)


def top_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Deployments, or their files; all that run if left out.",
            show_default=False,
        ),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="A gateway anywhere, e.g. http://host:9000, instead of deployments.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="A Triton's metrics, or HOST:8001/8002: its gRPC and metrics ports.",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(
            min=0.2, metavar="SECONDS", help="The window: 1, with --once 2.", show_default=False
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one window and end.")] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Trust any certificate of --url.")
    ] = False,
    workspace: RunWorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Watch waiting and running requests, token rates, latencies and replicas; q quits.

    Figures are those of the window between two looks. Tokens count when their request ends.
    --json implies --once; so does output that is no terminal.
    """
    from toolkit.gateway.watch import look
    from toolkit.gateway.watch.scrape import target_at

    if url or metrics:
        _refuse_both(names)
        fixed = [target_at(each, verify=not insecure) for each in (*(url or ()), *(metrics or ()))]

        def targets() -> Sequence[Target]:
            return fixed
    else:
        targets = _deployments(names or (), workspace)
    if once or json or not _has_screen():
        _print_once(lambda: look(targets()), interval or _ONCE, json)
        return
    from toolkit.cli.top_screen import watch

    watch(lambda: look(targets()), interval or _LIVE)


def _refuse_both(names: Sequence[str] | None) -> None:
    from toolkit.errors import SpecError

    if names:
        raise SpecError(
            "--url and --metrics go without names of deployments",
            where=" ".join(names),
            hint="leave one of them out",
        )


def _deployments(names: Sequence[str], workspace: Path | None) -> Callable[[], Sequence[Target]]:
    """Looks anew each time: servers come back on other ports.

    Raises:
        ServerError: one of them is not deployed, or nothing runs.
    """
    from toolkit.errors import ServerError
    from toolkit.gateway.watch.deployed import deployed
    from toolkit.serving.status import find
    from toolkit.workspace import root_option

    chosen = [locate(name, workspace) for name in names] or [locate(None, workspace)]
    for root, name in chosen:
        if name is not None:
            find(root, name)

    def targets() -> Sequence[Target]:
        found = (deployed(root, (name,) if name else ()) for root, name in chosen)
        return list({each.url: each for some in found for each in some}.values())

    if not targets():
        root = chosen[0][0]
        raise ServerError(
            "nothing runs here that could be watched",
            where=str(root),
            hint=f"toolkit status{root_option(root)} tells more; --workspace DIR looks elsewhere, "
            "--url at any gateway",
        )
    return targets


def _has_screen() -> bool:
    from rich.console import Console

    return sys.stdout.isatty() and not Console().is_dumb_terminal


def _print_once(look: Callable[[], Reading], interval: float, json: bool) -> None:
    """One window; nothing at all that answers is an error, for the sake of CI.

    Raises:
        ServerError: no target answers.
    """
    from toolkit.cli.output import print_json
    from toolkit.errors import ServerError
    from toolkit.gateway.watch import between

    before = look()
    time.sleep(interval)
    view = between(before, look())
    if json:
        print_json(view.as_json())
    else:
        _print_tables(view)
    if not any(each.answers for each in view.sources):
        raise ServerError(
            "nothing answers",
            details=[f"{each.url}: {each.error}" for each in view.sources],
            hint="toolkit status tells what runs",
        )


def _print_tables(view: View) -> None:
    from rich.console import Console

    from toolkit.cli.top_tables import render

    console = Console(highlight=False)
    if not console.is_terminal:
        # Whoever reads a pipe wants whole names.
        console = Console(highlight=False, width=200)
    if view.window_s is not None:
        console.print(f"the last {view.window_s:.1f} s", style="bold")
    console.print(render(view))
