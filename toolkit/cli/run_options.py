"""How the commands about running servers find the one that is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.workspace import default_root, root_at

NameArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="Name of the deployment, or its file; the only one that runs if left out.",
        show_default=False,
    ),
]
RunWorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        metavar="DIR",
        help="Default $TOOLKIT_WORKSPACE, or .toolkit beside the file or here.",
        show_default=False,
    ),
]


def locate(name: str | None, workspace: Path | None) -> tuple[Path, str | None]:
    """Workspace root and deployment name; ``name`` may be a deployment file.

    Raises:
        SpecError: the file is not a deployment file.
    """
    workspace = workspace and root_at(workspace)
    if name is None or not name.endswith((".yaml", ".yml")):
        return workspace or default_root(), name
    from toolkit.spec.loading import load

    file = Path(name)
    return workspace or default_root(file), load(file).deployment.name
