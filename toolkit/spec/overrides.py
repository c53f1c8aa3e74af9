"""Values from ``--set a.b=value`` and from ``TOOLKIT__A__B=value``, laid over a document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolkit.errors import SpecError
from toolkit.spec.document import Entry, MappingNode, Node, ScalarNode, SequenceNode, parse_value
from toolkit.spec.problems import Place, shown

PREFIX = "TOOLKIT__"
_DEEPEST = 16
"""Parts of a name, far above those of any field."""
_PART = r"[A-Za-z0-9_-]+(\[[0-9]{1,6}\]){0,4}"
_PATH = re.compile(rf"{_PART}(\.{_PART}){{0,{_DEEPEST - 1}}}")
_STEP = re.compile(r"\[([0-9]+)\]|[A-Za-z0-9_-]+")
_SHOWN = 70


@dataclass(frozen=True, slots=True)
class Override:
    """A value for the field at ``path``; digits name a key or the place in a list."""

    path: tuple[str | int, ...]
    node: Node
    place: Place


def from_flags(flags: Iterable[str], option: str = "--set") -> list[Override]:
    """The overrides of ``--set`` flags, each ``a.b=value`` or ``a.b[0]=value``, value in YAML.

    ``option`` is what they are called in errors.

    Raises:
        SpecError: one is not of that form, or its value is not YAML.
    """
    return [_from_flag(flag, option) for flag in flags]


def from_environment(environ: Mapping[str, str]) -> list[Override]:
    """The overrides of variables such as ``TOOLKIT__ENGINE__LIMITS__MAX_BATCH_SIZE``.

    Whole sections come before their fields, so that the more exact variable has the last word.

    Raises:
        SpecError: a name has an empty part, or a value is not YAML.
    """
    found = [_from_variable(name, environ[name]) for name in environ if name.startswith(PREFIX)]
    return sorted(found, key=lambda override: (len(override.path), override.place.label))


def refuse_near_misses(environ: Iterable[str], sections: Iterable[str]) -> None:
    """Variables that were meant as overrides of ``sections`` and would be heeded by nobody.

    Raises:
        SpecError: one has a single underscore after ``TOOLKIT``.
    """
    known = {section.upper() for section in sections}
    for name in environ:
        section, separator, _ = name.removeprefix("TOOLKIT_").partition("__")
        if name.startswith("TOOLKIT_") and separator and section in known:
            raise SpecError(
                "this variable would override nothing",
                where=f"environment variable {name}",
                hint=f"two underscores after TOOLKIT: {PREFIX}{name.removeprefix('TOOLKIT_')}",
            )


def apply(root: Node, overrides: Iterable[Override]) -> Node:
    """``root`` with the overrides laid over it in order; missing sections are added.

    Raises:
        SpecError: one goes through a value that is not a section, or past the end of a list.
    """
    for override in overrides:
        root = _set(root, override.path, override, ())
    return root


def _from_flag(flag: str, option: str) -> Override:
    name, equals, text = flag.partition("=")
    name = name.strip()
    label = f"{option} {_short(flag)}"
    if not equals or not _PATH.fullmatch(name):
        raise SpecError(
            "an override is a dotted field, = and a value",
            where=label,
            hint=f"write it like {option} field.of.section=32 or {option} 'field.list[0]=1'"
            if option != "--set"
            else "write it like --set engine.limits.max_batch_size=32 or --set 'serving.gpus[0]=1'",
        )
    path = tuple(int(step[1]) if step[1] else step[0] for step in _STEP.finditer(name))
    return Override(path, parse_value(text, label), Place(label))


def _from_variable(variable: str, text: str) -> Override:
    label = f"environment variable {variable}"
    path = variable[len(PREFIX) :].lower().split("__")
    if not all(path):
        raise SpecError(
            "a part of the name is empty",
            where=label,
            hint="write it like TOOLKIT__ENGINE__LIMITS__MAX_BATCH_SIZE=32",
        )
    if len(path) > _DEEPEST:
        raise SpecError("the name has too many parts", where=_short(label))
    return Override(tuple(path), parse_value(text, label), Place(label))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _set(
    node: Node | None, path: Sequence[str | int], override: Override, above: tuple[str | int, ...]
) -> Node:
    if not path:
        return override.node
    step, rest = path[0], path[1:]
    if isinstance(node, ScalarNode) and node.value is None:
        node = None
    if isinstance(node, SequenceNode) or (node is None and isinstance(step, int)):
        items = list(node.items) if isinstance(node, SequenceNode) else []
        index = _index(step, len(items), override, above)
        old = items[index] if index < len(items) else None
        items[index : index + 1] = [_set(old, rest, override, (*above, index))]
        return SequenceNode(items, node.place if node else override.place)
    if isinstance(node, ScalarNode) or isinstance(step, int):
        kind = "a single value" if isinstance(node, ScalarNode) else "a section, not a list"
        raise SpecError(f"{dotted(above) or 'the file'} is {kind}", where=override.place.label)
    entries = dict(node.entries) if node else {}
    below = entries[step].node if step in entries else None
    entries[step] = Entry(override.place, _set(below, rest, override, (*above, step)))
    return MappingNode(entries, node.place if node else override.place)


def _index(step: str | int, length: int, override: Override, above: tuple[str | int, ...]) -> int:
    if isinstance(step, str) and not (step.isascii() and step.isdecimal()):
        raise SpecError(
            f"{dotted(above)} is a list; its parts have numbers, not names",
            where=override.place.label,
            hint=f"write {dotted(above)}[0]",
        )
    index = int(step)
    if index > length:
        raise SpecError(
            f"{dotted(above)}[{index}] is past the end: the list in the file holds {length}",
            where=override.place.label,
            hint=f"set the whole list: --set '{dotted(above)}=[...]'",
        )
    return index


def dotted(path: Iterable[str | int]) -> str:
    """``a.b[0].c``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{shown(step)}" if text else shown(step)
    return text
