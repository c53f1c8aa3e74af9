"""How much comes in a second, the recent counting more."""

from __future__ import annotations

import math

MEMORY_S = 20.0


class FadingRate:
    """Events (or amounts) a second over the last :data:`MEMORY_S` or so."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._at = 0.0

    def note(self, now: float, amount: float = 1.0) -> None:
        """One comes, or so much of it."""
        self._sum, self._at = self._faded(now) + amount, now

    def per_s(self, now: float) -> float:
        """The rate."""
        return self._faded(now) / MEMORY_S

    def _faded(self, now: float) -> float:
        return self._sum * math.exp(-max(0.0, now - self._at) / MEMORY_S)
