"""Pydantic's errors in the terms of the deployment file: place, field, what is allowed."""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from toolkit.spec.document import MappingNode, Node, ScalarNode, SequenceNode, walk
from toolkit.spec.fields import Slot, Spot, locate, tags
from toolkit.spec.overrides import dotted
from toolkit.spec.problems import Place, Problem, shown
from toolkit.spec.section import Section
from toolkit.spec.suggestions import unknown_key

_SHOWN = 40


def explain(error: ValidationError, model: type[Section], root: Node) -> list[Problem]:
    """One problem for each error that ``model`` raised on the data of ``root``."""
    return [_problem(details, model, root) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, model: type[Section], root: Node) -> Problem:
    spot = locate(model, details["loc"])
    kind = details["type"]
    if kind == "rule":
        return _rule(details["ctx"], spot, root)
    if kind == "missing":
        return _missing(spot, root)
    if kind == "extra_forbidden":
        message, hint = unknown_key(model, spot)
        return Problem(message, _place(root, spot.path, key=True), hint)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _tag(spot, root)
    if kind == "value_error" and (spot.slot is None or spot.slot.item):
        reason = str(details["ctx"]["error"])
        return Problem(f"{dotted(spot.path)} {reason}", _place(root, spot.path))
    return _wrong_value(details, spot, root)


def _rule(context: dict[str, Any], spot: Spot, root: Node) -> Problem:
    place = _place(root, spot.path, key=True)
    for field in context["fields"]:
        path = (*spot.path, *field.split("."))
        if _node(root, path) is not None:
            place = _place(root, path)
            break
    return Problem(context["reason"], place, context["hint"])


def _missing(spot: Spot, root: Node) -> Problem:
    hint = spot.slot.description if spot.slot else None
    if spot.slot and any("source" in model.model_fields for model in spot.slot.sections):
        hint = f"add {spot.path[-1]}: {{source: hf://owner/name@revision}}, or a directory"
    return Problem(f"{dotted(spot.path)} is missing", _place(root, spot.path, key=True), hint)


def _tag(spot: Spot, root: Node) -> Problem:
    known = tags(spot.slot) if spot.slot else {}
    path = (*spot.path, spot.slot.discriminator or "") if spot.slot else spot.path
    allowed = ", ".join(known)
    node = _node(root, path)
    if node is None:
        message = f"{dotted(path)} is missing; it is one of {allowed}"
        return Problem(message, _place(root, path, key=True))
    message = f"{dotted(path)} must be one of {allowed}, not {_shown(node)}"
    return Problem(message, _place(root, path), _closest(node, tuple(known)))


def _wrong_value(details: ErrorDetails, spot: Spot, root: Node) -> Problem:
    name = dotted(spot.path)
    place = _place(root, spot.path, key=spot.is_key)
    if spot.slot is None:
        return Problem(f"{name}: {details['msg']}", place)
    if spot.is_key:
        key = str(spot.path[-1])
        return Problem(f"the name {shown(key)} must be {spot.slot.looks()}", place, _renamed(key))
    node = _node(root, spot.path)
    if node is None:
        return Problem(f"{name}: {details['msg']}", place)
    if details["type"] in ("too_short", "string_too_short"):
        return Problem(f"{name} must not be empty", place, spot.slot.description)
    empty = isinstance(node, ScalarNode) and node.value is None
    if empty:
        place = _place(root, spot.path, key=True)
    message = f"{name} must be {spot.slot.looks()}, not {'empty' if empty else _shown(node)}"
    return Problem(message, place, _hint(spot, node))


def _hint(spot: Spot, node: Node) -> str | None:
    slot = spot.slot
    assert slot is not None
    if not isinstance(node, ScalarNode):
        return None
    if node.value is None:
        return "give a value, or remove the line for the default"
    if slot.choices:
        return _closest(node, slot.choices)
    if slot.sections:
        return _section_hint(spot, slot, node)
    if slot.item:
        return f"write [{node.raw}]"
    if slot.annotation is bool:
        return _boolean_hint(node.raw)
    if slot.annotation is str and not isinstance(node.value, str):
        return f'put it in quotes: "{node.raw}"'
    if slot.annotation is str and str(spot.path[-1]) == "name":
        return _renamed(node.raw)
    if slot.annotation in (int, float):
        return _number_hint(slot, node)
    return None


def _section_hint(spot: Spot, slot: Slot, node: ScalarNode) -> str | None:
    name = spot.path[-1]
    if node.raw in tags(slot):
        return f"write {name}: {{{slot.discriminator}: {node.raw}}}"
    if any("source" in model.model_fields for model in slot.sections):
        return f"write {name}: {{source: {node.raw}}}"
    return "write its fields below it, indented"


def _boolean_hint(raw: str) -> str | None:
    text = raw.lower()
    if text in ("yes", "y", "on", "true", "1"):
        return "write true"
    return "write false" if text in ("no", "n", "off", "false", "0") else "write true or false"


def _number_hint(slot: Slot, node: ScalarNode) -> str | None:
    raw = node.raw.strip()
    digits = re.sub(r"(?<=\d)[_,](?=\d)", "", raw)
    plain = re.sub(r"^([-+]?)0+(?=\d)", r"\1", digits)
    if plain != raw and re.fullmatch(r"[-+]?\d+(\.\d+)?", plain):
        return f"write {plain}"
    if node.quoted and re.fullmatch(r"[-+]?\d+(\.\d+)?", raw):
        return "remove the quotes"
    if slot.annotation is int and isinstance(node.value, float) and node.value.is_integer():
        return f"write {int(node.value)}"
    if re.fullmatch(r"[\d.]+\s*([KMGT]i?|[kmgt]i?)", raw) and "size" in slot.looks():
        return f"write {raw}B"
    return None


def _closest(node: Node, allowed: tuple[str, ...]) -> str | None:
    if not isinstance(node, ScalarNode):
        return None
    text = node.raw.lower().replace("-", "_")
    by_plain = {re.sub(r"[^a-z0-9]", "", value): value for value in allowed}
    plain = re.sub(r"[^a-z0-9]", "", text)
    if plain in by_plain:
        return f"write {by_plain[plain]}"
    near = difflib.get_close_matches(text, allowed, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else None


def _renamed(name: str) -> str | None:
    better = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:63].rstrip("-_")
    return f"write {better}" if better and better != name else None


def _shown(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a section"
    if isinstance(node, SequenceNode):
        return "a list"
    return shown(node.raw, limit=_SHOWN, quotes=node.quoted)


def _node(root: Node, path: tuple[str | int, ...]) -> Node | None:
    steps = list(walk(root, path))
    return steps[-1][1] if path and len(steps) == len(path) else None


def _place(root: Node, path: tuple[str | int, ...], *, key: bool = False) -> Place:
    """Where ``path`` stands, or the nearest section above it that the file holds."""
    steps = list(walk(root, path))
    if not steps:
        return root.place
    key_place, node = steps[-1]
    return key_place if key or len(steps) < len(path) else node.place
