"""How much one key has taken lately: token buckets and counts, with the clock given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from toolkit.gateway.guard.keys import KeyLimits

Limit = Literal[
    "requests_per_minute", "tokens_per_minute", "concurrent_requests", "concurrent_tokens"
]


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Which limit, and when it is worth to come back."""

    limit: Limit
    allowed: int
    retry_after_s: float


class Bucket:
    """Refills by ``per_minute``; holds a minute's worth."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._rate = per_minute / 60
        self._most = float(per_minute)
        self._level = self._most
        self._at = now

    def wait_for(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` could be taken; 0: now. More than a minute's worth counts
        as a full bucket, so that it is not refused for ever."""
        self._refill(now)
        return max(0.0, (min(amount, self._most) - self._level) / self._rate)

    def take(self, amount: float, now: float) -> None:
        """Take it; the level may go below zero."""
        self._refill(now)
        self._level -= amount

    def give_back(self, amount: float, now: float) -> None:
        """What was taken in advance and not used."""
        self._refill(now)
        self._level = min(self._most, self._level + amount)

    def _refill(self, now: float) -> None:
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now


class Meter:
    """One key's. Tokens are taken in advance, as many as an answer may have at most."""

    def __init__(self, limits: KeyLimits, now: float) -> None:
        self.running = 0
        self.running_tokens = 0
        self.adopt(limits, now)

    def adopt(self, limits: KeyLimits, now: float) -> None:
        """Limits as they are from now on; what runs still counts."""
        self.limits = limits
        self._requests = _bucket(limits.requests_per_minute, now)
        self._tokens = _bucket(limits.tokens_per_minute, now)

    def start(self, tokens: int, now: float) -> Exceeded | None:
        """Count a request of at most ``tokens``, unless a limit is exceeded."""
        exceeded = self._exceeded(tokens, now)
        if exceeded is not None:
            return exceeded
        if self._requests:
            self._requests.take(1, now)
        if self._tokens:
            self._tokens.take(tokens, now)
        self.running += 1
        self.running_tokens += tokens
        return None

    def end(self, reserved: int, used: int, now: float) -> None:
        """A request has ended that had ``reserved`` tokens and took ``used``."""
        self.running -= 1
        self.running_tokens -= reserved
        if self._tokens:
            self._tokens.give_back(max(0, reserved - used), now)

    def _exceeded(self, tokens: int, now: float) -> Exceeded | None:
        limits = self.limits
        if limits.concurrent_requests is not None and self.running >= limits.concurrent_requests:
            return Exceeded("concurrent_requests", limits.concurrent_requests, 1.0)
        most = limits.concurrent_tokens
        if most is not None and self.running and self.running_tokens + tokens > most:
            return Exceeded("concurrent_tokens", most, 1.0)
        wait = self._requests.wait_for(1, now) if self._requests else 0.0
        if wait > 0 and limits.requests_per_minute is not None:
            return Exceeded("requests_per_minute", limits.requests_per_minute, wait)
        wait = self._tokens.wait_for(tokens, now) if self._tokens else 0.0
        if wait > 0 and limits.tokens_per_minute is not None:
            return Exceeded("tokens_per_minute", limits.tokens_per_minute, wait)
        return None


def _bucket(per_minute: int | None, now: float) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, now)
