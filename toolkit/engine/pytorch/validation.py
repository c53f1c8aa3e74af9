"""Arguments of the LLM API against a release's table: names, types, what is required."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from toolkit.releases import ConfigClass, Field, Release
from toolkit.releases.llm_api import ROOT


def argument_problems(arguments: Mapping[str, JsonValue], release: Release) -> Iterator[str]:
    """Everything in ``arguments`` that the release's LLM API would refuse, one line each.

    Unknown keys, values of the wrong type or outside the choices, required fields that are
    missing, and a ``decoding_type`` that no class has, in nested sections too.
    """
    yield from _section(arguments, release.llm_args.config_class(ROOT), release, "")


def _section(
    values: Mapping[str, JsonValue], owner: ConfigClass, release: Release, above: str
) -> Iterator[str]:
    known = owner.by_name
    tag = owner.tag[0] if owner.tag else None
    given = {known[key].name for key in values if key in known}
    for field in owner.fields:
        if field.required and field.name not in given:
            yield f"{above}{field.name} is missing"
    for key, value in values.items():
        if key == tag:
            continue
        if key not in known:
            yield f"{above}{key} is unknown to {release.title}"
        else:
            yield from _value(value, known[key], release, above + key)


def _value(value: JsonValue, field: Field, release: Release, path: str) -> Iterator[str]:
    wrong = field.problem(value)
    if wrong:
        yield f"{path} {wrong}"
    elif isinstance(value, dict) and field.config:
        below = _class_of(value, field, release)
        if below is None:
            yield f"{path} is none of {', '.join(field.config)}"
        else:
            yield from _section(value, below, release, f"{path}.")


def _class_of(value: Mapping[str, JsonValue], field: Field, release: Release) -> ConfigClass | None:
    """The class that upstream reads a section as: by its tag, or the first that fits the keys."""
    classes = [release.llm_args.config_class(name) for name in field.config]
    if len(classes) == 1:
        return classes[0]
    for one in classes:
        if one.tag is not None and value.get(one.tag[0]) == one.tag[1]:
            return one
    if any(one.tag is not None and one.tag[0] in value for one in classes):
        return None
    return next((one for one in classes if set(value) <= set(one.by_name)), None)
