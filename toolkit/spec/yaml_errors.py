"""PyYAML's syntax errors in words that say what to change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: str
    message: str
    hint: str | None = None
    at_context: bool = False


# The patterns are searched in PyYAML's "context; problem" of its scanner, parser and composer.
_RULES = (
    _Rule(r"found character '\\t'", "a tab is used for indentation", "indent with spaces"),
    _Rule(
        r"expected a single document",
        "a second document begins here",
        "keep one deployment per file; remove the ---",
    ),
    _Rule(
        r"while scanning a quoted scalar; found unexpected (end of stream|document separator)",
        "the quote that opens here is never closed",
        at_context=True,
    ),
    _Rule(
        r"while parsing a flow (sequence|mapping)",
        "the bracket that opens here is not closed, or a comma is missing inside",
        "quote texts that contain brackets, braces or commas",
        at_context=True,
    ),
    _Rule(
        r"mapping values are not allowed",
        "a second ': ' on one line",
        "put the value in quotes, or the key on a line of its own",
    ),
    _Rule(r"could not find expected ':'", "a ':' is missing", "write key: value", at_context=True),
    _Rule(
        r"expected <block end>",
        "this line is indented otherwise than those it belongs to",
        "line it up with the other keys of its section",
    ),
    _Rule(r"cannot start any token", "a value cannot begin like this", "put the value in quotes"),
)
_ALIAS = re.compile(r"found undefined alias '(.*)'")


def parse_problem(error: yaml.MarkedYAMLError) -> tuple[str, Any, str | None]:
    """Message, mark and hint for a syntax error."""
    problem = error.problem or "not YAML"
    text = f"{error.context}; {problem}" if error.context else problem
    mark = error.problem_mark or error.context_mark
    alias = _ALIAS.search(problem)
    if alias:
        name = alias[1]
        return f"the alias *{name} has no anchor &{name} before it", mark, "quote a text with *"
    for rule in _RULES:
        if re.search(rule.pattern, text):
            place = error.context_mark if rule.at_context and error.context_mark else mark
            return rule.message, place, rule.hint
    return f"not valid YAML: {problem}", mark, None
