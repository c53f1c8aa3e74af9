"""Options that several commands share, so that they are spelled alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The deployment file.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Override a field, e.g. engine.kv_cache.reuse=false."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Where artifacts are kept; default $TOOLKIT_WORKSPACE or .toolkit beside FILE.",
        show_default=False,
    ),
]
ModelConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--model-config",
        metavar="FILE",
        help="Without weights: the model's config.json; else the fetched checkpoint's, or the "
        "hub's.",
        show_default=False,
    ),
]
DraftConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--draft-config",
        metavar="FILE",
        help="The draft model's config.json, likewise.",
        show_default=False,
    ),
]
