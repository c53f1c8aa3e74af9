"""Free slots kept for those who are expected soon and must not wait.

A class whose TTFT target is shorter than the time in which slots come free finds the engines full
of long batch answers. So the others leave a few slots, as many as the class is likely to want
within the time it can wait, less those that come free by themselves in that time. An idle slot is
lost throughput; therefore there is an account: it fills with a small share of all slot-seconds
and pays for each second that a slot stands idle while somebody waits for it. Empty, it releases
the slots. So the loss is bounded whatever the forecast is worth: an engine does not gain more by
its last slot than that slot's share (a batch of n makes at most n/(n-1) of the tokens of n-1).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from toolkit.gateway.scheduling.classes import ClassPolicy
from toolkit.gateway.scheduling.rates import FadingRate

IDLE_SHARE = 0.02
_SAVED_S = 20.0  # seconds' worth of slot-seconds that the account holds at most
_ACTIVE = 0.025  # arrivals a second: half of one that has just come for the first time
_HOLD_S = 0.25  # an account that does not last so long is not worth opening
_CAUTION = 1.3  # standard deviations above the expected arrivals: nine times in ten enough


class Reserve:
    """The account and the forecast of one model's replicas."""

    def __init__(self, classes: Mapping[str, ClassPolicy]) -> None:
        self._targets = {name: p.ttft_s or math.inf for name, p in classes.items()}
        self._arrivals = {name: FadingRate() for name in classes}
        self._account = 0.0
        self._idle = 0
        self._at = 0.0

    def arrives(self, name: str, now: float) -> None:
        """A request of this class has come."""
        self._arrivals[name].note(now)

    def tightest(self, name: str, now: float) -> float:
        """The shortest TTFT target of active classes that is shorter than this class's own."""
        own = self._targets[name]
        active = (
            target
            for other, target in self._targets.items()
            if target < own and self._arrivals[other].per_s(now) >= _ACTIVE
        )
        return min(active, default=math.inf)

    def pass_time(self, slots: int, now: float) -> None:
        """Settle the account up to now, with so many slots altogether."""
        elapsed, self._at = max(0.0, now - self._at), now
        most = IDLE_SHARE * slots * _SAVED_S
        earned = (IDLE_SHARE * slots - self._idle) * elapsed
        self._account = max(0.0, min(most, self._account + earned))

    def wanted(
        self,
        name: str,
        ends_per_s: float,
        start_s: float,
        now: float,
        waiting: Collection[str] = (),
    ) -> int:
        """Slots that this class must leave free now.

        ``ends_per_s``: slots that come free a second; ``start_s``: from sending to first token.
        Nothing is kept for classes that are ``waiting``: between those present the order decides.
        """
        needed = 0.0
        for other, target in self._targets.items():
            if target >= self._targets[name] or other in waiting:
                continue
            patience = max(target / 4, target - start_s)
            expected = self._arrivals[other].per_s(now) * patience
            likely = expected + _CAUTION * math.sqrt(expected)
            needed += max(0.0, likely - ends_per_s * patience)
        paid_for = self._account / _HOLD_S
        # What is held already is held until the account is empty.
        return min(math.floor(needed + 0.5), math.ceil(paid_for) if self._idle else int(paid_for))

    def idles(self, slots: int, now: float) -> None:
        """So many slots stand idle from now on although somebody waits."""
        self._idle = slots

    def spent_at(self, slots: int, now: float) -> float | None:
        """When the account is empty if nothing happens; None if nothing idles."""
        loss = self._idle - IDLE_SHARE * slots
        return now + self._account / loss if self._idle and loss > 0 else None
