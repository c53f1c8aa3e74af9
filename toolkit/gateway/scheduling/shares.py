"""Fair shares between classes: a clock for each, which its work drives and its weight slows.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) with classes for flows and engine-seconds
for bytes: whoever's clock is behind goes next. A class that comes back from idleness starts at
the others' time, so that it neither has saved up a claim nor pays for what nobody wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class FairShares:
    """The clocks."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._clock = dict.fromkeys(weights, 0.0)
        self._time = 0.0

    def joins(self, name: str) -> None:
        """A class that had nothing waiting has something now."""
        self._clock[name] = max(self._clock[name], self._time)

    def charge(self, name: str, cost_s: float, waiting: Collection[str]) -> None:
        """A class gets so much work done; ``waiting``: the classes that wanted it, this too."""
        self._time = max(self._time, min(self._clock[other] for other in waiting))
        self._clock[name] += cost_s / self._weights[name]

    def settle(self, name: str, difference_s: float) -> None:
        """The work was more (or less) than charged."""
        self._clock[name] += difference_s / self._weights[name]

    def key(self, name: str) -> float:
        """The class's clock: the smallest goes first."""
        return self._clock[name]
