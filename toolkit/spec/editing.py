"""Change single fields of a deployment file's text; every other byte stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

Path = Sequence[str]


class UnsoundError(Exception):
    """The text holds something (an anchor, say) that a change of one place would carry on."""


def set_value(text: str, path: Path, value: str) -> str:
    """``text`` with the YAML ``value`` for the field at ``path``, whose section has to be there.

    Raises:
        UnsoundError: see the class.
        KeyError: a section above the field is missing.
    """
    parent = _mapping(_root(text), path[:-1])
    pair = _pair(parent, path[-1])
    if pair is not None:
        start, end = _start(pair[1]), _end(pair[1])
        if start == end:  # an empty value, right behind the colon
            value = f" {value}"
        elif text[pair[0].end_mark.index : start].count("\n"):
            # A section below its key becomes one value on the key's line.
            start = text.index(":", pair[0].end_mark.index) + 1
            value = f" {value}"
        return text[:start] + value + text[end:]
    return _added(text, parent, f"{path[-1]}: {value}")


def remove(text: str, path: Path) -> str:
    """``text`` without the field at ``path``, nor the comment lines right above it.

    A section that would be left empty goes with its last field.

    Raises:
        UnsoundError: see the class.
        KeyError: there is no such field.
    """
    parent = _mapping(_root(text), path[:-1])
    pair = _pair(parent, path[-1])
    if pair is None:
        raise KeyError(".".join(path))
    if len(parent.value) == 1 and len(path) > 1:
        return remove(text, path[:-1])
    if parent.flow_style:
        return _without_flow(text, parent, pair)
    start = text.rfind("\n", 0, _start(pair[0])) + 1
    start = _above(text, start, _start(pair[0]) - start)
    return text[:start] + text[_line_end(text, _end(pair[1])) :]


def _root(text: str) -> yaml.MappingNode:
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken):
            raise UnsoundError("anchors")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise UnsoundError("no mapping")
    return node


def _mapping(node: yaml.MappingNode, path: Path) -> yaml.MappingNode:
    for step in path:
        pair = _pair(node, step)
        if pair is None or not isinstance(pair[1], yaml.MappingNode):
            raise KeyError(".".join(path))
        node = pair[1]
    return node


def _pair(node: yaml.MappingNode, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    return next(((name, value) for name, value in node.value if name.value == key), None)


def _start(node: yaml.Node) -> int:
    mark: Any = node.start_mark
    return int(mark.index)


def _end(node: yaml.Node) -> int:
    """Where the last character of a value lies; block sections report where the next one begins."""
    block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    if block and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    mark: Any = node.end_mark
    return int(mark.index)


def _line_end(text: str, index: int) -> int:
    """Behind the line break that ends the line of ``index``."""
    if index and text[index - 1] == "\n":  # a block scalar ends behind its own
        return index
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1


def _above(text: str, start: int, indent: int) -> int:
    """Where the comment lines of the same indent begin that end at ``start``."""
    while start:
        line = text.rfind("\n", 0, start - 1) + 1
        if not text[line:start].startswith(f"{' ' * indent}#"):
            break
        start = line
    return start


def _without_flow(text: str, parent: yaml.MappingNode, pair: tuple[yaml.Node, yaml.Node]) -> str:
    place = parent.value.index(pair)
    if place + 1 < len(parent.value):
        return text[: _start(pair[0])] + text[_start(parent.value[place + 1][0]) :]
    before = _end(parent.value[place - 1][1]) if place else _start(pair[0])
    return text[:before] + text[_end(pair[1]) :]


def _added(text: str, parent: yaml.MappingNode, entry: str) -> str:
    if parent.flow_style:
        mark: Any = parent.end_mark
        end = _end(parent.value[-1][1]) if parent.value else mark.index - 1
        comma = ", " if parent.value else ""
        return text[:end] + comma + entry + text[end:]
    first = parent.value[0]
    start = text.rfind("\n", 0, _start(first[0])) + 1
    indent = text[start : _start(first[0])]
    end = _line_end(text, _end(first[1]))
    if indent.strip() or (end and text[end - 1] != "\n"):
        raise UnsoundError("no line of its own")
    return f"{text[:end]}{indent}{entry}\n{text[end:]}"
