"""Ways to directories that Triton's python backend can name on a command line.

The backend starts a model's process through a shell and quotes nothing: a space in the path of
the repository or of the backends ends an argument, and other characters mean worse.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from pathlib import Path

from toolkit.errors import EnvironmentError_

_PLAIN = re.compile(r"[A-Za-z0-9._/+@%=:,-]+")


def is_plain(path: Path) -> bool:
    """Whether a shell reads ``path`` as it stands."""
    return _PLAIN.fullmatch(str(path)) is not None


def require_plain(path: Path) -> None:
    """Refuse what a container would see under its own name.

    Raises:
        EnvironmentError_: ``path`` has special characters.
    """
    if not is_plain(path):
        raise EnvironmentError_(
            "Triton's python backend takes no path with spaces or special characters",
            where=str(path),
            hint="choose another --workspace, or set TOOLKIT_WORKSPACE",
        )


def plain_way(target: Path) -> Path:
    """``target`` itself, or a link to it that has no special characters.

    The link lies in the temporary directory, in a folder of this user alone, and has the same
    name each time.

    Raises:
        EnvironmentError_: the temporary directory is no plain path either, or the folder is
            somebody else's.
    """
    if is_plain(target):
        return target
    folder = _folder()
    _sweep(folder)
    link = folder / hashlib.sha256(os.fsencode(target)).hexdigest()[:16]
    if not (link.is_symlink() and link.readlink() == target):
        temporary = folder / f".{secrets.token_hex(8)}"
        temporary.symlink_to(target)
        temporary.replace(link)
    return link


def _sweep(folder: Path) -> None:
    """Remove links to directories that are gone."""
    for path in folder.iterdir():
        if path.is_symlink() and not path.exists():
            path.unlink(missing_ok=True)


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"toolkit-{os.getuid()}"
    hint = "set TMPDIR to a directory of your own without spaces"
    if not is_plain(folder):
        raise EnvironmentError_(
            "Triton's python backend takes no path with spaces, and TMPDIR has one",
            where=str(folder),
            hint=hint,
        )
    folder.mkdir(mode=0o700, exist_ok=True)
    # Whoever else could write there could lead the server to another repository.
    state = folder.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022 or folder.is_symlink():
        raise EnvironmentError_("somebody else can write there", where=str(folder), hint=hint)
    return folder
