"""How long operations tell what they are doing, without knowing who listens.

A library function takes a :class:`Progress` and reports steps to it; the command line
passes one that draws bars on a terminal or prints plain lines elsewhere, and tests pass
:class:`Silent`.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the life of one operation after another."""

    def start(self, what: str, total: float | None = None, unit: str = "") -> None:
        """Begin an operation of ``total`` units (None: unknown length)."""

    def advance(self, amount: float = 1) -> None:
        """Move the current operation on by ``amount`` units."""

    def finish(self, result: str = "") -> None:
        """End the current operation, with a short result such as ``163 MB``."""

    def note(self, message: str) -> None:
        """Say something that is worth reading beside the bar."""


class Silent:
    """Progress that nobody watches."""

    def start(self, what: str, total: float | None = None, unit: str = "") -> None: ...

    def advance(self, amount: float = 1) -> None: ...

    def finish(self, result: str = "") -> None: ...

    def note(self, message: str) -> None: ...
