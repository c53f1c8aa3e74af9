"""How long answers become: learned from those that ended, and from those that were cut.

An answer cut at ``max_tokens`` says only that it would have been longer. Counting it as complete
would teach the model the limits that clients set; leaving it out would teach it that answers are
short. So lengths are kept as a survival curve (Kaplan and Meier, "Nonparametric Estimation from
Incomplete Observations", 1958) over buckets that widen with the length, and older answers fade.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate, pairwise

_RATIO = 1.2
_LONGEST = 2**21
_FADE = 0.998  # of an answer's weight with each later one: half after 350
_PRIOR_MEAN = 256.0
_PRIOR_WEIGHT = 2.0  # answers' worth
_REFRESH = 8  # answers between two looks at the curve


def _edges() -> list[int]:
    edges = [0]
    while edges[-1] < _LONGEST:
        edges.append(max(edges[-1] + 1, int(edges[-1] * _RATIO)))
    return edges


_EDGES = _edges()


def _prior() -> list[float]:
    """An exponential distribution: before anything is known, nothing depends on the past."""
    beyond = [math.exp(-edge / _PRIOR_MEAN) for edge in _EDGES]
    return [_PRIOR_WEIGHT * (a - b) for a, b in pairwise(beyond)]


class LengthModel:
    """Expected output tokens of one class of requests for one model."""

    def __init__(self) -> None:
        self._ended = _prior()
        self._cut = [0.0] * len(self._ended)
        self._weight = 1.0
        self._news = 0
        self._survival: list[float] = []
        self._area: list[float] = []
        self._refresh()

    def observe(self, tokens: int, *, cut: bool) -> None:
        """An answer ended by itself after ``tokens``, or was cut there."""
        # Bucket k holds the lengths (edge k, edge k+1]; a cut at n was alive through n.
        bucket = bisect_right(_EDGES, max(tokens, 1) - 1) - 1
        bucket = min(bucket, len(self._ended) - 1)
        (self._cut if cut else self._ended)[bucket] += self._weight
        self._weight /= _FADE
        if self._weight > 1e6:
            self._ended = [w / self._weight for w in self._ended]
            self._cut = [w / self._weight for w in self._cut]
            self._weight = 1.0
        self._news += 1
        if self._news >= _REFRESH:
            self._refresh()

    def mean(self, limit: int, done: int = 0) -> float:
        """Expected tokens still to come after ``done``, of at most ``limit`` altogether."""
        if limit <= done:
            return 0.0
        alive = self._alive_at(done)
        if alive < 1e-6:  # longer than anything seen: as much again
            return float(min(limit - done, max(done, 1)))
        return min(limit - done, (self._area_to(limit) - self._area_to(done)) / alive)

    def quantile(self, share: float, limit: int) -> int:
        """The length that ``share`` of the answers do not exceed, at most ``limit``."""
        for edge, alive in zip(_EDGES, self._survival, strict=True):
            if edge >= limit:
                break
            if alive <= 1 - share:
                return max(edge, 1)
        return limit

    def _refresh(self) -> None:
        self._news = 0
        seen = [e + c for e, c in zip(self._ended, self._cut, strict=True)]
        at_risk = list(accumulate(reversed(seen)))[::-1]
        alive = 1.0
        survival, area = [1.0], [0.0]
        for k, risk in enumerate(at_risk):
            after = alive * (1 - self._ended[k] / risk) if risk > 0 else 0.0
            area.append(area[-1] + (_EDGES[k + 1] - _EDGES[k]) * (alive + after) / 2)
            survival.append(after)
            alive = after
        self._survival, self._area = survival, area

    def _place(self, tokens: int) -> tuple[int, float]:
        at = min(bisect_right(_EDGES, tokens), len(_EDGES) - 1) - 1
        return at, min(1.0, (tokens - _EDGES[at]) / (_EDGES[at + 1] - _EDGES[at]))

    def _alive_at(self, tokens: int) -> float:
        at, part = self._place(tokens)
        return self._survival[at] + part * (self._survival[at + 1] - self._survival[at])

    def _area_to(self, tokens: int) -> float:
        at, part = self._place(tokens)
        width = (_EDGES[at + 1] - _EDGES[at]) * part
        here = self._survival[at]
        there = here + part * (self._survival[at + 1] - here)
        return self._area[at] + width * (here + there) / 2
