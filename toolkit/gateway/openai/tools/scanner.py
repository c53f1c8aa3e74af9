"""One call in JSON, read while it comes: its arguments can go on before it is complete."""

from __future__ import annotations

import json
from typing import Literal

_SPACE = " \t\r\n"
_NAME = "name"
_ARGUMENTS = ("arguments", "parameters")

_State = Literal["open", "key", "in_key", "colon", "value", "in_value", "after", "done", "failed"]


class ValueScanner:
    """Finds where one JSON value ends."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._begun = False

    def ends(self, character: str) -> Literal["no", "with", "before"]:
        """Whether the value ends ``with`` this character, ``before`` it, or not yet."""
        if self._in_string:
            return self._in_text(character)
        first, self._begun = not self._begun, True
        if character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            if self._depth == 0:
                return "before"
            self._depth -= 1
            return "no" if self._depth else "with"
        elif self._depth == 0 and not first and (character == "," or character in _SPACE):
            return "before"
        return "no"

    def _in_text(self, character: str) -> Literal["no", "with"]:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
            return "no" if self._depth else "with"
        return "no"


class CallScanner:
    """Reads ``{"name": ..., "arguments": {...}}`` in whatever order its keys come.

    ``name`` is None until it is known; arguments are given out only after it. ``raw`` is all
    that was read, for a caller that finds that it was no call after all.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.raw = ""
        self.has_arguments = False
        self._state: _State = "open"
        self._key = ""
        self._value = ""
        self._held = ""
        self._streams = False
        self._end = ValueScanner()

    @property
    def done(self) -> bool:
        """The object is closed."""
        return self._state == "done"

    @property
    def failed(self) -> bool:
        """This is no call."""
        return self._state == "failed"

    def feed(self, text: str) -> tuple[str, str]:
        """Read ``text``: the arguments that can be given out, and what lies behind the call."""
        at = 0
        while at < len(text) and not (self.done or self.failed):
            at += self._step(text[at])
        self.raw += text[:at]
        if self.name is None:
            return "", text[at:]
        arguments, self._held = self._held, ""
        return arguments, text[at:]

    def _step(self, character: str) -> int:
        """Take one character; 0 if it has to be looked at again."""
        state = self._state
        if state == "in_value":
            return self._in_value(character)
        if state == "in_key":
            if character == '"' and not self._key.endswith("\\"):
                self._state = "colon"
            else:
                self._key += character
        elif character in _SPACE:
            pass
        elif state == "value":
            self._state, self._value, self._end = "in_value", "", ValueScanner()
            # Some models write arguments as a text that holds JSON: unpacked at its end.
            self._streams = self._key in _ARGUMENTS and character == "{"
            return 0
        elif state == "key" and character == '"':
            self._state, self._key = "in_key", ""
        else:
            self._state = _NEXT.get((state, character), "failed")
        return 1

    def _in_value(self, character: str) -> int:
        ends = self._end.ends(character)
        if ends != "before":
            if self._streams:
                self._held += character
                self.has_arguments = True
            else:
                self._value += character
        if ends != "no":
            self._state = "after"
            self._take_value()
        return 0 if ends == "before" else 1

    def _take_value(self) -> None:
        if self._key != _NAME and (self._key not in _ARGUMENTS or self._streams):
            return
        try:
            value = json.loads(self._value)
        except ValueError:
            self._state = "failed"
            return
        if self._key == _NAME:
            if isinstance(value, str) and value:
                self.name = value
            else:
                self._state = "failed"
        else:
            self._held += value if isinstance(value, str) else json.dumps(value or {})
            self.has_arguments = True


_NEXT: dict[tuple[_State, str], _State] = {
    ("open", "{"): "key",
    ("key", "}"): "done",
    ("colon", ":"): "value",
    ("after", ","): "key",
    ("after", "}"): "done",
}
