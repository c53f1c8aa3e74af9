"""Which artifacts the latest build of each deployment uses, so that pruning keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import ValidationFailed

_FOLDER = "uses"


def record_use(root: Path, user: str, keys: Sequence[str]) -> None:
    """Say that ``user`` (a deployment's name) uses exactly the artifacts ``keys`` from now on."""
    folder = root / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{user}.{os.getpid()}"
    with temporary.open("w") as file:
        file.write(json.dumps({"keys": list(keys)}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / f"{user}.json")


def users_by_key(root: Path) -> dict[str, list[str]]:
    """For each used artifact the names of its users, sorted.

    Raises:
        ValidationFailed: a record is damaged; what it named must not be taken for unused.
    """
    users: dict[str, list[str]] = {}
    for path in sorted((root / _FOLDER).glob("[!.]*.json")):
        for key in _keys(path):
            users.setdefault(key, []).append(path.stem)
    return users


def _keys(record: Path) -> list[str]:
    try:
        keys = json.loads(record.read_bytes())["keys"]
    except (ValueError, KeyError, TypeError):
        keys = None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValidationFailed(
            f"the record of what {record.stem} uses is damaged",
            where=str(record),
            hint=f"build {record.stem} again, or delete the file if it is not wanted any more",
        )
    return keys
