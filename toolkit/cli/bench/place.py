"""Where to measure: a deployment that runs, or any Triton."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from toolkit.cli.options import SetOption, WorkspaceOption
from toolkit.errors import SpecError

if TYPE_CHECKING:
    from toolkit.bench.metrics import Objectives
    from toolkit.spec.models import Deployment


@dataclass(frozen=True)
class PlaceFlags:
    """Which server."""

    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="The deployment file.", show_default=False),
    ] = None
    url: Annotated[
        str | None, typer.Option("--url", help="grpc://HOST:PORT or http://HOST:PORT.")
    ] = None
    model: Annotated[
        str | None, typer.Option("--model", help="Model to call; default: FILE's name.")
    ] = None
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol", help="grpc (streaming, default), http-stream, http or openai (gateway)."
        ),
    ] = None
    set_: SetOption = None
    workspace: WorkspaceOption = None


@dataclass(frozen=True)
class Place:
    """What to measure, and what the deployment file says beside it."""

    url: str
    model: str
    protocol: Any
    tokenizer: Path | None = None
    objectives: Objectives | None = None
    default_output: Path | None = None
    max_input_len: int | None = None
    max_seq_len: int | None = None
    notes: tuple[str, ...] = ()


def find_place(flags: PlaceFlags) -> Place:
    """Who is to be measured.

    Raises:
        SpecError: the flags or the deployment file are wrong.
        ServerError: the deployment does not run.
    """
    from toolkit.bench.endpoint import find_deployed
    from toolkit.spec.loading import load
    from toolkit.workspace import default_root

    if flags.protocol not in (None, "grpc", "http-stream", "http", "openai"):
        raise SpecError(
            f"unknown protocol {flags.protocol!r}",
            where="--protocol",
            hint="grpc, http-stream, http or openai",
        )
    if flags.file is None:
        if flags.url is None or flags.model is None:
            raise SpecError("give a deployment FILE, or --url and --model")
        return Place(flags.url, flags.model, flags.protocol)
    loaded = load(flags.file, overrides=flags.set_ or [])
    deployment = loaded.deployment
    root = flags.workspace or default_root(flags.file)
    found = None if flags.url else find_deployed(deployment, root)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    return Place(
        url=found.url(cast("Any", flags.protocol)) if found else flags.url or "",
        model=flags.model or deployment.name,
        protocol=flags.protocol,
        tokenizer=found.tokenizer if found else None,
        objectives=_objectives(deployment),
        default_output=root / "bench" / f"{deployment.name}-{stamp}",
        max_input_len=deployment.engine.limits.max_input_len,
        max_seq_len=deployment.engine.limits.max_seq_len,
        notes=_doubts(loaded.resolved(), root, found.digest) if found else (),
    )


def _doubts(deployment: Deployment, root: Path, digest: str) -> tuple[str, ...]:
    from toolkit.pipeline.expected import is_another_build
    from toolkit.workspace import Workspace

    if not is_another_build(deployment, Workspace(root), digest):
        return ()
    return (
        f"the {deployment.name} that was measured was built from another file or with other "
        "settings; toolkit deploy FILE --replace brings up this one",
    )


def _objectives(deployment: Deployment) -> Objectives:
    """Each class's targets; requests of no class are served as the first one listed."""
    from toolkit.bench.metrics import Objective

    classes = {
        name: Objective(ttft_ms=one.ttft_ms, itl_ms=one.itl_ms)
        for name, one in deployment.scheduling.classes.items()
    }
    return {"": next(iter(classes.values())), **classes}
