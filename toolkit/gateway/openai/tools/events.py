"""What a parser of tool calls finds in an answer."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

_ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Text:
    """Text that belongs to no call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call of the tool ``name`` begins."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments, in JSON."""

    index: int
    text: str


Event = Text | CallStart | CallArguments

NewId = Callable[[], str]


def long_id() -> str:
    """An id of a call, as OpenAI writes them."""
    return f"call_{secrets.token_hex(12)}"


def short_id() -> str:
    """An id of a call, as Mistral's templates demand: nine letters and digits."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))


class Parser(Protocol):
    """Reads one answer."""

    calls: int
    """Calls that have begun."""

    def feed(self, text: str) -> list[Event]:
        """What ``text`` brings."""

    def finish(self) -> list[Event]:
        """What was held back, for the answer is complete."""
