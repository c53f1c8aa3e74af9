"""A YAML text as data that knows where every key and value stands.

Scalars follow the core schema of YAML 1.2 rather than PyYAML's 1.1: only ``true`` and ``false``
are booleans (``no`` and ``on`` stay texts), ``1_000``, ``010`` and ``1:30`` are not numbers, and
keys are always texts. What a reader would misread is left a text, so that the field's own check
refuses it by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from toolkit.errors import SpecError
from toolkit.spec.interpolation import expand
from toolkit.spec.problems import Place, Problem, refuse_all, shown
from toolkit.spec.yaml_errors import parse_problem

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_NODES = 20_000
"""Values in one document with aliases expanded: far above any deployment, far below a bomb."""

_PLAIN = "plain"
_TAGS = {
    f"tag:yaml.org,2002:{kind}": kind
    for kind in ("null", "bool", "int", "float", "str", "map", "seq")
}
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """One value; ``raw`` is its text as written, without quotes."""

    value: bool | int | float | str | None
    raw: str
    quoted: bool
    place: Place


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's place and its value."""

    key_place: Place
    node: Node


@dataclass(frozen=True, slots=True)
class MappingNode:
    """Keys and values in the order of the file."""

    entries: Mapping[str, Entry]
    place: Place


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A list."""

    items: Sequence[Node]
    place: Place


Node: TypeAlias = ScalarNode | MappingNode | SequenceNode


def plain(node: Node) -> Json:
    """The data alone."""
    if isinstance(node, MappingNode):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    return node.value


def resolve_scalar(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _LEADING_ZERO.fullmatch(text):
        return text
    try:
        if _INT.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:  # more digits than Python converts
        return text
    return text


def parse(text: str, label: str, *, environ: Mapping[str, str] | None) -> Node | None:
    """The document in ``text``, or None if it holds nothing.

    Args:
        text: YAML.
        label: Names the source in error places, such as the file's path.
        environ: Values of ``${NAME}`` in the text's scalars; None leaves them alone.

    Raises:
        SpecError: not YAML, several documents, a key given twice, a variable that is not set ...
    """
    return _parse(text, environ, _Places(label, whole=False))


def parse_value(text: str, label: str) -> Node:
    """The value of an override, every part of it placed at ``label``.

    Raises:
        SpecError: as :func:`parse`.
    """
    places = _Places(label, whole=True)
    nothing = ScalarNode(None, "", quoted=False, place=places.whole_text())
    return _parse(text, None, places) or nothing


@dataclass(frozen=True, slots=True)
class _Places:
    label: str
    whole: bool

    def at(self, mark: Any) -> Place:
        return (
            self.whole_text() if self.whole else Place(self.label, mark.line + 1, mark.column + 1)
        )

    def at_index(self, text: str, index: int) -> Place:
        if self.whole:
            return self.whole_text()
        line = text.count("\n", 0, index)
        return Place(self.label, line + 1, index - (text.rfind("\n", 0, index) + 1) + 1)

    def whole_text(self) -> Place:
        return Place(self.label)


def _parse(text: str, environ: Mapping[str, str] | None, places: _Places) -> Node | None:
    try:
        root = _Loader(text).get_single_node()
        if root is None:
            return None
        builder = _Builder(text, environ, places)
        node = builder.build(root)
    except yaml.reader.ReaderError as error:
        place = places.at_index(text, error.position)
        raise SpecError(
            f"the character U+{int(error.character):04X} is not allowed in YAML", where=str(place)
        ) from error
    except yaml.MarkedYAMLError as error:
        message, mark, hint = parse_problem(error)
        raise SpecError(message, where=str(places.at(mark)), hint=hint) from error
    except RecursionError as error:
        raise SpecError("sections are nested too deeply", where=places.label) from error
    refuse_all(builder.problems)
    return node


class _Loader(yaml.SafeLoader):
    """Composes nodes; unquoted scalars keep their text, for :func:`resolve_scalar`."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _PLAIN
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]


@dataclass(slots=True)
class _Builder:
    text: str
    environ: Mapping[str, str] | None
    places: _Places
    problems: list[Problem] = field(default_factory=list)
    _built: dict[int, tuple[Node, int]] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)

    def build(self, node: yaml.Node) -> Node:
        return self._sized(node)[0]

    def _sized(self, node: yaml.Node) -> tuple[Node, int]:
        """The node and how many values it holds; an alias is built once and counted each time."""
        key = id(node)
        if key in self._open:
            raise SpecError(
                "an alias (*) stands inside its own anchor (&)",
                where=str(self.places.at(node.start_mark)),
            )
        if key not in self._built:
            self._open.add(key)
            self._built[key] = self._new(node)
            self._open.remove(key)
        return self._built[key]

    def _new(self, node: yaml.Node) -> tuple[Node, int]:
        place = self.places.at(node.start_mark)
        if node.tag != _PLAIN and node.tag not in _TAGS:
            self._problem(f"the tag {node.tag} is not supported", place, "remove the tag")
        built: Node
        if isinstance(node, yaml.MappingNode):
            entries, size = self._entries(node)
            built = MappingNode(entries, place)
        elif isinstance(node, yaml.SequenceNode):
            items = [self._sized(item) for item in node.value]
            built, size = SequenceNode([n for n, _ in items], place), 1 + sum(s for _, s in items)
        else:
            assert isinstance(node, yaml.ScalarNode)
            built, size = self._scalar(node, place), 1
        if size > MAX_NODES:
            raise SpecError(f"more than {MAX_NODES} values", where=str(place))
        return built, size

    def _entries(self, node: yaml.MappingNode) -> tuple[dict[str, Entry], int]:
        entries: dict[str, Entry] = {}
        size = 1
        for key_node, value_node in node.value:
            place = self.places.at(key_node.start_mark)
            value, value_size = self._sized(value_node)
            size += value_size
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem("a key has to be a name", place, None)
                continue
            key = key_node.value
            if key == "<<" and key_node.tag == _PLAIN:
                self._problem(
                    "merge keys (<<) are not supported",
                    place,
                    "use an alias for a whole value, or write the fields out",
                )
            elif key in entries:
                line = entries[key].key_place.line
                self._problem(
                    f"{shown(key)} is given twice" + (f", first in line {line}" if line else ""),
                    place,
                    "keep one of the two",
                )
            else:
                entries[key] = Entry(place, value)
        return entries, size

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> ScalarNode:
        raw = self._expanded(node)
        quoted = node.tag != _PLAIN and node.style is not None
        kind = _TAGS.get(node.tag)
        value = resolve_scalar(raw) if node.tag == _PLAIN or kind != "str" else raw
        return ScalarNode(value, raw, quoted, place)

    def _expanded(self, node: yaml.ScalarNode) -> str:
        if self.environ is None or "$" not in node.value:
            return str(node.value)
        raw, faults = expand(node.value, self.environ)
        start = node.start_mark.index
        for fault in faults:
            found = self.text.find(fault.written, start, node.end_mark.index)
            index = start if found < 0 else found
            start = index + 1
            self._problem(fault.message, self.places.at_index(self.text, index), fault.hint)
        return raw

    def _problem(self, message: str, place: Place, hint: str | None) -> None:
        self.problems.append(Problem(message, place, hint))


def walk(node: Node, path: Sequence[str | int]) -> Iterator[tuple[Place, Node]]:
    """Key place and value at each step of ``path``, as far as the document goes."""
    for step in path:
        if isinstance(node, MappingNode) and isinstance(step, str) and step in node.entries:
            entry = node.entries[step]
            place, node = entry.key_place, entry.node
        elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            place = node.place
        else:
            return
        yield place, node
