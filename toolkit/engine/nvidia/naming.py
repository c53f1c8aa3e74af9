"""From fields of the deployment file to a release's names and values, through its table."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import JsonValue

from toolkit.engine.nvidia.refusal import refusal
from toolkit.releases import Release
from toolkit.spec.models import Engine

Part = Literal["build_flags", "triton_parameters", "llm_args"]


def field_value(engine: Engine, field: str) -> Any:
    """The value of ``engine.some.field``; None below a section that is not there."""
    value: Any = engine
    for step in field.split(".")[1:]:
        value = None if value is None else getattr(value, step)
    return value


def is_default(engine: Engine, field: str) -> bool:
    """Whether the field has the value that it has in a file that does not mention it."""
    return bool(field_value(engine, field) == field_value(Engine(), field))


def names(release: Release, field: str, part: Part) -> tuple[str, ...]:
    """What ``part`` of the release calls ``field``; empty if it has nothing of the kind."""
    for term in release.terms:
        if term.name == field:
            found: tuple[str, ...] = getattr(term, part)
            return found
    return ()


def named(
    release: Release, field: str, value: JsonValue, part: Part
) -> Iterator[tuple[str, JsonValue]]:
    """Name and value of everything in ``part`` of the release that ``field`` decides.

    Raises:
        UnsupportedError: the release has no counterpart of the field, or none of the value.
    """
    known = names(release, field, part)
    if not known:
        raise no_counterpart(release, field)
    for name in known:
        yield name, translated(release, field, name, value)


def translated(release: Release, field: str, name: str, value: JsonValue) -> JsonValue:
    """What stands for the deployment file's ``value`` under the release's ``name``.

    Raises:
        UnsupportedError: nothing does.
    """
    table = release.term(field).values.get(name)
    if table is None:
        return value
    key = str(value).lower() if isinstance(value, bool) else str(value)
    if key not in table:
        raise refusal(
            field, f"{release.title} has no {key} for {name}", f"use {' or '.join(table)}"
        )
    # A copy: what is built from it must not write into the table.
    stands_for: JsonValue = copy.deepcopy(table[key])
    return stands_for


def no_counterpart(release: Release, field: str) -> Exception:
    """The error for a field that a release knows nothing of."""
    return refusal(
        field,
        f"{release.title} has no counterpart of it",
        "remove it, or choose another engine.release (toolkit releases lists them)",
    )
