"""Where things are kept: the workspace beside a deployment file, the cache of the user."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from toolkit.errors import EnvironmentError_


def default_root(deployment_file: Path | None = None) -> Path:
    """``$TOOLKIT_WORKSPACE``, or ``.toolkit`` beside the deployment file (or here)."""
    chosen = os.environ.get("TOOLKIT_WORKSPACE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    beside = deployment_file.absolute().parent if deployment_file else Path.cwd()
    return beside / ".toolkit"


def root_option(root: Path) -> str:
    """What a command about ``root`` needs after its name: nothing, or ``--workspace``."""
    root = root.absolute()
    return "" if root == default_root() else f" --workspace {shlex.quote(str(root))}"


def root_at(chosen: Path) -> Path:
    """The workspace that ``chosen`` is, or that lies in it as ``.toolkit``."""
    inside = chosen / ".toolkit"
    return inside if inside.is_dir() and not (chosen / "run").is_dir() else chosen


def user_cache_path() -> Path:
    """What several workspaces share, such as the server and downloaded wheels.

    ``$TOOLKIT_CACHE``, ``$XDG_CACHE_HOME/toolkit`` or ``~/.cache/toolkit``; it may not be there.
    """
    chosen = os.environ.get("TOOLKIT_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "toolkit"


def user_cache_dir() -> Path:
    """:func:`user_cache_path`, created if absent.

    Raises:
        EnvironmentError_: it cannot be.
    """
    path = user_cache_path()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentError_(
            f"the directory for caches cannot be made: {error.strerror}",
            where=str(path),
            hint="set TOOLKIT_CACHE to a directory that can be written",
        ) from error
    return path
