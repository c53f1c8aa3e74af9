"""What, besides a stage's settings, decides its result: our own code and other people's.

A stage whose code did not change between two releases of this package keeps its artifacts; one
whose code changed builds again, without anybody having to remember a revision number.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_BLOCK = 1 << 20


@cache
def code_digest(*packages: str) -> str:
    """SHA-256 over all files of the given packages of ours, names and contents."""
    digest = hashlib.sha256()
    for package in packages:
        # Found, not imported: the room's own dependencies may be absent or heavy.
        spec = importlib.util.find_spec(package)
        assert spec is not None, f"no package {package}"
        assert spec.origin is not None, f"{package} has no file"
        place = Path(spec.origin)
        root = place.parent if place.name == "__init__.py" else place
        digest.update(tree_digest(root).encode())
    return digest.hexdigest()


def tree_digest(root: Path) -> str:
    """SHA-256 over a file, or over the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if _counts(path))
    for path in files:
        name = path.relative_to(root).as_posix()
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Installed versions; ``absent`` for what is not installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _counts(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
