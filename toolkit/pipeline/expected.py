"""Whether a server that runs is the one that a deployment file describes."""

from __future__ import annotations

from toolkit.errors import ToolkitError
from toolkit.progress import Silent
from toolkit.spec.models import Deployment
from toolkit.workspace import Workspace


def expected_digest(deployment: Deployment, workspace: Workspace) -> str | None:
    """The key of the repository that a build of ``deployment`` would make or find.

    None where that cannot be told from what is here: artifacts of the model were pruned, say.
    """
    from toolkit.pipeline import build

    try:
        found = build(deployment, workspace, progress=Silent(), offline=True, dry_run=True)
    except ToolkitError:
        return None
    artifact = found.artifact("repository")
    return artifact.key if artifact else None


def is_another_build(deployment: Deployment, workspace: Workspace, digest: str) -> bool:
    """Whether the repository ``digest`` that is served is known to be another one."""
    expected = expected_digest(deployment, workspace)
    return expected is not None and expected != digest
