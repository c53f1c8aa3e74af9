"""How much comes in a second, the recent counting more."""

from __future__ import annotations

import math

MEMORY_S = 20.0
_SOON_S = 2.0  # an event says nothing about a shorter time than this


class FadingRate:
    """Events (or amounts) a second over the last :data:`MEMORY_S` or so.

    The average is over the time since the first event while that is shorter, else a rate would
    take a minute to be believed.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._at = 0.0
        self._since: float | None = None

    def note(self, now: float, amount: float = 1.0) -> None:
        """One comes, or so much of it."""
        if self._since is None:
            self._since = now
        self._sum, self._at = self._faded(now) + amount, now

    def per_s(self, now: float) -> float:
        """The rate."""
        if self._since is None:
            return 0.0
        span = max(_SOON_S, now - self._since)
        return self._faded(now) / (MEMORY_S * (1 - math.exp(-span / MEMORY_S)))

    def _faded(self, now: float) -> float:
        return self._sum * math.exp(-max(0.0, now - self._at) / MEMORY_S)
