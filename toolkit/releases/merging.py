"""Tables that state their differences from another one.

Objects are merged key by key. Lists of named objects are merged by name: an entry of the same
name is merged into the one below, a new one is appended, ``"$drop": true`` takes it out. Every
other value replaces the one below, and ``{"$replace": value}`` does so for lists and objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REPLACE, DROP = "$replace", "$drop"


def merged(below: Any, above: Any) -> Any:
    """``below`` with the differences that ``above`` states.

    Raises:
        ValueError: an entry is dropped that is not there.
    """
    if isinstance(above, Mapping) and set(above) == {REPLACE}:
        return above[REPLACE]
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        changed = {key: merged(below.get(key), value) for key, value in above.items()}
        return {**below, **changed}
    if _named(below) and _named(above):
        return _merged_entries(below, above)
    return _bare(above)


def _merged_entries(below: list[Any], above: list[Any]) -> list[Any]:
    entries = {entry["name"]: entry for entry in below}
    for entry in above:
        name = entry["name"]
        if not entry.get(DROP):
            entries[name] = merged(entries.get(name), entry)
        elif entries.pop(name, None) is None:
            raise ValueError(f"{name} is dropped but not there")
    return list(entries.values())


def _named(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and "name" in item for item in value)
    )


def _bare(value: Any) -> Any:
    """``value`` where nothing lies below it: a marker left in would become data."""
    if isinstance(value, Mapping):
        if {REPLACE, DROP} & set(value):
            raise ValueError(f"{sorted(value)} marks a difference, but nothing lies below it")
        return {key: _bare(item) for key, item in value.items()}
    return [_bare(item) for item in value] if isinstance(value, list) else value
