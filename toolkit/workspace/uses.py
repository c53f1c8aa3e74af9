"""Which artifacts the latest build of each deployment uses, so that pruning keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

_FOLDER = "uses"


def record_use(root: Path, user: str, keys: Sequence[str]) -> None:
    """Say that ``user`` (a deployment's name) uses exactly the artifacts ``keys`` from now on."""
    folder = root / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{user}.{os.getpid()}"
    temporary.write_text(json.dumps({"keys": list(keys)}) + "\n")
    temporary.replace(folder / f"{user}.json")


def users_by_key(root: Path) -> dict[str, list[str]]:
    """For each used artifact the names of its users, sorted."""
    users: dict[str, list[str]] = {}
    for path in sorted((root / _FOLDER).glob("[!.]*.json")):
        for key in json.loads(path.read_text())["keys"]:
            users.setdefault(key, []).append(path.stem)
    return users
