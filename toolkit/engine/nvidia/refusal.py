"""The one way in which a combination is refused here."""

from __future__ import annotations

from toolkit.errors import UnsupportedError


def refusal(where: str, message: str, hint: str) -> UnsupportedError:
    """An error for the field ``where``; ``hint`` says what would work instead."""
    return UnsupportedError(message, where=where, hint=hint)
