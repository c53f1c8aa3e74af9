"""When a replica is taken out and when it may come back: a circuit breaker without a clock."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.gateway.triton.failure import Cause


@dataclass(frozen=True)
class HealthPolicy:
    """How patiently a replica is judged; seconds.

    ``probe_failures`` probes without answer, or ``server_failures`` failed requests with no
    success between them, take it out; ``stall_timeout`` is how long its requests may go
    without any of them moving.
    """

    probe_interval: float = 0.5
    probe_timeout: float = 2.0
    probe_failures: int = 3
    server_failures: int = 3
    stall_timeout: float = 60.0
    first_pause: float = 0.5
    longest_pause: float = 30.0


class Health:
    """One replica's. It begins out, until the first probe that succeeds."""

    def __init__(self, policy: HealthPolicy) -> None:
        self._policy = policy
        self._probes_failed = 0
        self._requests_failed = 0
        self._pause = policy.first_pause
        self._not_before = 0.0
        self.up = False

    @property
    def silent(self) -> bool:
        """Whether the last probes all had no answer."""
        return self._probes_failed >= self._policy.probe_failures

    def request_failed(self, cause: Cause, now: float) -> str | None:
        """Why to take it out now, if that is so. A replica without place is well."""
        if cause == "busy" or not self.up:
            return None
        self._requests_failed += 1
        if cause == "connection":
            return self._out("the connection broke", now)
        if self._requests_failed >= self._policy.server_failures:
            return self._out(f"{self._requests_failed} requests in a row failed", now)
        return None

    def request_succeeded(self) -> None:
        """A request has come to its end; the next pause is a short one again."""
        self._requests_failed = 0
        self._pause = self._policy.first_pause

    def stalled(self, now: float) -> str:
        """Its requests do not move: out."""
        return self._out("its requests do not move", now)

    def probed(self, answered: bool, now: float) -> str | None:
        """What a probe found: why it goes out, or None; :attr:`up` tells whether it came in."""
        if answered:
            self._probes_failed = 0
            if not self.up and now >= self._not_before:
                self.up = True
                self._requests_failed = 0
            return None
        self._probes_failed += 1
        if self.up and self.silent:
            return self._out(f"it did not answer {self._probes_failed} times", now)
        return None

    def _out(self, why: str, now: float) -> str:
        self.up = False
        self._not_before = now + self._pause
        self._pause = min(2 * self._pause, self._policy.longest_pause)
        return why
