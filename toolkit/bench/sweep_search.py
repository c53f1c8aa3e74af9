"""Which rate to try next, to find the highest that a server serves within its SLO.

Pure: it is told what came of a rate and says which one to try; nothing here measures. The rate
doubles until one misses the SLO, and falls to a quarter while none has met it and requests still
meet one another. Between the highest that met it and the lowest above that did not, the
geometric middle is tried until the two are closer than the tolerance.

Latency over a short window is noisy near the limit, where queues come and go. So a rate whose
share is within a standard error of the wanted one is tried again at once, up to three times in
all, and its requests are counted together; and the two that would be the result are tried again
unless they are three standard errors clear of it, as one unlucky window would end the search far
too low.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from toolkit.bench.load import Load, OpenLoop, Stop, TraceLoop
from toolkit.errors import SpecError
from toolkit.spec.section import Section

Verdict = Literal["met", "missed", "client"]
Bound = Literal["server", "client", "limit", "floor", "probes", "workload", "interrupted"]
GROWTH, FALL = 2.0, 4.0
_TRIES = 3
_FLOOR = 1024.0
_ALONE = 0.3
_CLEAR = 3.0
_DIGITS = 4


class RateSearch(Section):
    """Find the highest rate at which a share of the requests meets the SLO."""

    type: Literal["search"]
    share: float = Field(default=0.95, gt=0, le=1, description="Of the requests, in the SLO.")
    tolerance: float = Field(
        default=0.05, ge=0.005, le=1, description="0.05: stop when 5% above is too much."
    )
    start: float = Field(default=1.0, gt=0, le=100_000, description="First rate tried, per second.")
    limit: float = Field(default=10_000.0, gt=0, le=100_000, description="No rate above.")
    arrivals: Literal["poisson", "constant", "burst", "trace"] = Field(
        default="poisson", description="How starts are spread; trace: as in the workload's."
    )
    burst_size: int = Field(default=8, ge=1, le=10_000, description="Sessions of one burst.")
    requests: int = Field(
        default=50, ge=1, le=1_000_000, description="A window is long enough for so many."
    )
    probes: int = Field(default=40, ge=1, le=1000, description="Windows to measure at most.")

    @property
    def loads(self) -> tuple[Load, ...]:
        """None: which loads it measures depends on what comes of them.

        Raises:
            SpecError: always.
        """
        raise SpecError("a search for a rate has no loads of its own", where="load.type")

    @property
    def described(self) -> str:
        """How it is done, for a report."""
        return (
            f"the highest rate with {self.share:.1%} in the SLO, to {self.tolerance:.1%}; "
            f"{self.arrivals} arrivals, windows for at least {self.requests} requests"
        )

    def load(self, rate: float) -> Load:
        """The load at one rate."""
        if self.arrivals == "trace":
            return TraceLoop(type="trace", rate=rate)
        size = self.burst_size
        return OpenLoop(type="open", rate=rate, arrivals=self.arrivals, burst_size=size)

    def stop(self, rate: float, stop: Stop) -> Stop:
        """How long to measure at that rate: as ``stop`` says, or as many requests need."""
        longer = max(stop.duration, self.requests / rate)
        return stop.model_copy(update={"duration": longer})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a window: ``good`` of the ``judged`` requests met the SLO; ``in_flight`` of
    them ran at once on average."""

    good: int
    judged: int
    saturated: bool = False
    in_flight: float = 1.0

    @property
    def share(self) -> float:
        """Good among the judged."""
        return self.good / self.judged if self.judged else 0.0


@dataclass
class Search:
    """The state of a search; ``outcomes`` by rate, in the order in which they were tried."""

    spec: RateSearch
    outcomes: dict[float, list[Outcome]] = field(default_factory=dict)

    def tell(self, rate: float, outcome: Outcome) -> None:
        """What came of ``rate``."""
        self.outcomes.setdefault(rate, []).append(outcome)

    def next(self) -> float | None:
        """The rate to try, in starts a second; None: the search has ended."""
        if self._tried >= self.spec.probes:
            return None
        for rate in self.outcomes:
            if self.verdict(rate) is None:
                return rate
        return self._onward() or next(
            (rate for rate in (self.missed, self.met) if rate and self._to_confirm(rate)), None
        )

    def _onward(self) -> float | None:
        """The next new rate; None: the bounds are close enough."""
        low, high = self.met, self.missed
        if low is None and high is None:
            return min(self.spec.start, self.spec.limit)
        if high is None:
            assert low is not None
            return None if low >= self.spec.limit else min(low * GROWTH, self.spec.limit)
        if low is None:
            return None if self._idle(high) else _tidy(high / FALL)
        return None if high <= low * (1 + self.spec.tolerance) else _tidy(math.sqrt(low * high))

    def _to_confirm(self, rate: float) -> bool:
        valid = self._valid(rate)
        if not valid or len(self.outcomes[rate]) >= _TRIES:
            return False
        return _in_doubt(*_together(valid), self.spec.share, _CLEAR)

    def verdict(self, rate: float) -> Verdict | None:
        """What is known of ``rate``; None: not enough yet.

        A window in which the client was saturated tells nothing against the server, unless its
        requests met the SLO even so.
        """
        valid, share = self._valid(rate), self.spec.share
        tries = len(self.outcomes[rate])
        if not valid:
            return "client" if tries >= _TRIES - 1 else None
        good, judged = _together(valid)
        if tries < _TRIES and _in_doubt(good, judged, share, 1.0):
            return None
        return "met" if judged and good / judged >= share else "missed"

    @property
    def met(self) -> float | None:
        """The highest rate that met the SLO."""
        return max((rate for rate in self.outcomes if self.verdict(rate) == "met"), default=None)

    @property
    def missed(self) -> float | None:
        """The lowest rate above that which did not, whoever was to blame."""
        found = (rate for rate in self.outcomes if self.verdict(rate) in ("missed", "client"))
        return min((rate for rate in found if rate > (self.met or 0.0)), default=None)

    @property
    def bound(self) -> Bound:
        """What keeps the rate from being higher, as far as the search went."""
        low, high = self.met, self.missed
        if self.next() is not None:
            return "interrupted"
        if high is None:
            return "limit" if low is not None and low >= self.spec.limit else "probes"
        if low is not None and high > low * (1 + self.spec.tolerance):
            return "probes"
        if self.verdict(high) == "client":
            return "client"
        return "server" if low is not None else "floor"

    def _valid(self, rate: float) -> list[Outcome]:
        share = self.spec.share
        return [one for one in self.outcomes[rate] if not one.saturated or one.share >= share]

    def _idle(self, rate: float) -> bool:
        """Whether requests ran alone most of the time, so that a lower rate would be no help."""
        return rate <= self.spec.start / _FLOOR or all(
            one.in_flight < _ALONE for one in self.outcomes[rate]
        )

    @property
    def _tried(self) -> int:
        return sum(map(len, self.outcomes.values()))


def _together(outcomes: list[Outcome]) -> tuple[int, int]:
    return sum(one.good for one in outcomes), sum(one.judged for one in outcomes)


def _in_doubt(good: int, judged: int, share: float, errors: float) -> bool:
    """Whether ``share`` is within so many standard errors of what was seen.

    Wilson's score interval, which does not vanish where all or none were good (E. B. Wilson,
    1927, https://doi.org/10.1080/01621459.1927.10502953).
    """
    if not judged:
        return True
    seen, z2 = good / judged, errors**2
    middle = (seen + z2 / (2 * judged)) / (1 + z2 / judged)
    spread = seen * (1 - seen) / judged + z2 / (4 * judged**2)
    half = errors * math.sqrt(spread) / (1 + z2 / judged)
    return middle - half < share < middle + half


def _tidy(rate: float) -> float:
    """Four digits: as exact as the least tolerance needs, and good to read."""
    return float(f"{rate:.{_DIGITS}g}")
