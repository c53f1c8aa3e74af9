"""Prompts from a JSONL file: one session a line.

A line holds either ``prompt`` (sent as it is) or ``turns`` (a list of texts a user says, with
``system`` before them if given), and may hold ``max_tokens`` and ``class``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import SpecError

_KEYS = frozenset({"prompt", "text_input", "turns", "system", "max_tokens", "class"})


@dataclass(frozen=True, slots=True)
class FileSession:
    """One line of the file; with ``is_prompt`` its only turn is the whole prompt."""

    turns: tuple[str, ...]
    is_prompt: bool
    system: str = ""
    max_tokens: int | None = None
    request_class: str = ""


def read_prompts(path: Path) -> list[FileSession]:
    """All sessions of the file.

    Raises:
        SpecError: no such file, nothing in it, or a line that is wrong, with its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read: {error}", where=str(path)) from error
    sessions = [
        _session(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not sessions:
        raise SpecError("holds no prompt", where=str(path))
    return sessions


def _session(line: str, where: str) -> FileSession:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise SpecError(f"not JSON: {error}", where=where) from error
    if not isinstance(found, dict):
        raise SpecError("a line has to be a JSON object", where=where)
    for key in found:
        if key not in _KEYS:
            raise SpecError(
                f"unknown key {key!r}", where=where, hint=f"known: {', '.join(sorted(_KEYS))}"
            )
    prompt = found.get("prompt", found.get("text_input"))
    turns = found.get("turns")
    if (prompt is None) == (turns is None):
        raise SpecError("give either prompt or turns", where=where)
    texts = (prompt,) if turns is None else turns
    if not isinstance(texts, tuple | list) or not texts or not all(map(_is_text, texts)):
        raise SpecError("prompt and turns have to be texts that are not empty", where=where)
    return FileSession(
        tuple(texts),
        turns is None,
        _optional(found, "system", str, where) or "",
        _tokens(found, where),
        _optional(found, "class", str, where) or "",
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _tokens(found: dict[str, Any], where: str) -> int | None:
    tokens: int | None = _optional(found, "max_tokens", int, where)
    if tokens is not None and tokens < 1:
        raise SpecError("max_tokens has to be at least 1", where=where)
    return tokens


def _optional(found: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = found.get(key)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise SpecError(f"{key} has to be of type {kind.__name__}", where=where)
    return value
