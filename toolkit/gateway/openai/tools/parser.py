"""Tells calls of tools from text, while an answer comes."""

from __future__ import annotations

import re
from collections.abc import Collection

from toolkit.gateway.openai.tools.events import (
    CallArguments,
    CallStart,
    Event,
    NewId,
    Text,
    long_id,
    short_id,
)
from toolkit.gateway.openai.tools.formats import ToolFormat
from toolkit.gateway.openai.tools.scanner import CallScanner, ValueScanner

_HEAD = re.compile(r"\s*([\w.-]{1,128})\s*(?:\[CALL_ID\][\w-]+)?\s*\[ARGS\]\s*")
_LONGEST_HEAD = 256


class CallParser:
    """Reads calls in a family's form; what is no call after all comes out as text.

    Args:
        form: How calls are written.
        names: Of the declared tools; an answer that merely looks like a call has to name one.
        expected: The answer has to be calls: it begins inside them, without ``form.opening``.
        most: Calls that are read; what comes after is left out.
    """

    def __init__(
        self,
        form: ToolFormat,
        names: Collection[str],
        *,
        expected: bool = False,
        most: int | None = None,
    ) -> None:
        self._form = form
        self._names = frozenset(names)
        self._most = most
        self._new_id: NewId = short_id if form.family == "mistral" else long_id
        self.calls = 0
        self._rest = ""
        self._skipped = ""
        self._between = self._marked = expected
        self._at_start = form.bare and not expected
        self._call: _Call | None = None

    def feed(self, text: str) -> list[Event]:
        """What ``text`` brings."""
        return self._read(text, final=False)

    def finish(self) -> list[Event]:
        """What was held back, for the answer is complete."""
        found = self._read("", final=True)
        if self._call is not None:
            found += self._end_call(cut=True)
        skipped = "" if self.calls else self._skipped
        rest, self._rest, self._skipped = skipped + self._rest, "", ""
        return found + self._text(rest)

    def _read(self, text: str, *, final: bool) -> list[Event]:
        self._rest += text
        found: list[Event] = []
        before = None
        # Every step either takes some of the rest or changes what it is looking for.
        while self._rest and before != (state := (self._rest, self._between, self._call)):
            before = state
            if self._call is not None:
                found += self._in_call()
            elif self._between:
                found += self._around_calls(final)
            else:
                found += self._in_text(final)
        return found

    def _in_text(self, final: bool) -> list[Event]:
        rest, opening = self._rest, self._form.opening
        if self._at_start:
            begun = rest.lstrip()
            if not begun:
                return []
            self._at_start = False
            if begun.startswith("{"):
                self._skipped, self._rest, self._between = rest[: -len(begun)], begun, True
                return []
        at = rest.find(opening)
        if at >= 0:
            before = rest[:at].rstrip()
            self._skipped, self._rest = rest[len(before) : at] + opening, rest[at + len(opening) :]
            self._between = self._marked = True
            return self._text(before)
        keep = 0
        if not final:
            # White space before a call is not part of the text.
            keep = len(rest) - len(rest[: len(rest) - _beginning_of(rest, opening)].rstrip())
        self._rest = rest[len(rest) - keep :]
        return self._text(rest[: len(rest) - keep])

    def _around_calls(self, final: bool) -> list[Event]:
        form, rest = self._form, self._rest
        bare = rest.lstrip()
        self._skipped += rest[: len(rest) - len(bare)]
        self._rest = bare
        if not bare:
            return []
        if bare[0] == "{":
            self._call = _Call(CallScanner())
            return []
        for marker in (form.closing, form.opening):
            if marker and bare.startswith(marker):
                self._rest = bare[len(marker) :]
                self._skipped = "" if marker == form.closing else self._skipped + marker
                self._between = self._marked = marker == form.opening
                return []
            if marker and marker.startswith(bare) and not final:
                return []
        if bare[0] in form.separators:
            self._skipped, self._rest = self._skipped + bare[0], bare[1:]
            return []
        if form.named and (head := self._head(bare, final)) is not None:
            return head
        # No call: what was taken for the beginning of one is text, and what follows may be one.
        skipped = "" if self.calls else self._skipped
        self._skipped, self._rest, self._between = "", bare[1:], False
        return self._text(skipped + bare[0])

    def _head(self, rest: str, final: bool) -> list[Event] | None:
        """``name[ARGS]`` before an object; None if this is not one."""
        match = _HEAD.match(rest)
        if match and rest[match.end() :].startswith("{"):
            self._call = _Call(_Named(match[1], rest[: match.end()]))
            self._rest = rest[match.end() :]
            return []
        may_become = len(rest) < _LONGEST_HEAD and "\n" not in rest and "{" not in rest
        return [] if may_become and not final else None

    def _in_call(self) -> list[Event]:
        call = self._call
        assert call is not None
        arguments, self._rest = call.scanner.feed(self._rest)
        scanner = call.scanner
        found: list[Event] = []
        if not call.begun and scanner.name is not None and scanner.has_arguments:
            if not self._marked and scanner.name not in self._names:
                return self._no_call()
            found += self._begin(call, scanner.name)
        if arguments and call.begun:
            found += self._arguments(call, arguments)
        if scanner.done or scanner.failed:
            found += self._end_call(cut=scanner.failed)
        return found

    def _begin(self, call: _Call, name: str) -> list[Event]:
        call.begun, call.index = True, self.calls
        self.calls += 1
        if self._most is not None and self.calls > self._most:
            self.calls = self._most
            call.left_out = True
            return []
        return [CallStart(call.index, self._new_id(), name)]

    def _arguments(self, call: _Call, text: str) -> list[Event]:
        return [] if call.left_out else [CallArguments(call.index, text)]

    def _end_call(self, *, cut: bool = False) -> list[Event]:
        """The call is complete; or ``cut`` off, in which case only one that has begun counts.

        What has begun is told already, and stays a call whatever the model made of its end.
        """
        call = self._call
        assert call is not None
        if call.begun:
            self._call, self._skipped = None, ""
            return []
        name = call.scanner.name
        if cut or name is None or self._form.bare:
            return self._no_call()
        found = [*self._begin(call, name), *self._arguments(call, "{}")]
        self._call, self._skipped = None, ""
        return found

    def _no_call(self) -> list[Event]:
        assert self._call is not None
        text = self._skipped + self._call.scanner.raw
        self._call, self._skipped, self._between = None, "", False
        return self._text(text)

    @staticmethod
    def _text(text: str) -> list[Event]:
        return [Text(text)] if text else []


class ForcedCall:
    """The answer is the arguments of one call that the request has named."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.calls = 0

    def feed(self, text: str) -> list[Event]:
        """More of the arguments."""
        if not text:
            return []
        found: list[Event] = [CallArguments(0, text)]
        if not self.calls:
            self.calls = 1
            found.insert(0, CallStart(0, long_id(), self._name))
        return found

    def finish(self) -> list[Event]:
        """Nothing is held back."""
        return []


class _Named:
    """The arguments of a call whose name stood before them."""

    def __init__(self, name: str, head: str) -> None:
        self.name: str | None = name
        self.raw = head
        self.has_arguments = True
        self.failed = False
        self.done = False
        self._end = ValueScanner()

    def feed(self, text: str) -> tuple[str, str]:
        at = 0
        while at < len(text) and not self.done:
            self.done = self._end.ends(text[at]) == "with"
            at += 1
        self.raw += text[:at]
        return text[:at], text[at:]


class _Call:
    def __init__(self, scanner: CallScanner | _Named) -> None:
        self.scanner = scanner
        self.begun = False
        self.left_out = False
        self.index = 0


def _beginning_of(text: str, marker: str) -> int:
    """Length of the end of ``text`` that may become ``marker``."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
