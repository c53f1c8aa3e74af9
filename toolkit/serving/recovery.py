"""What to do after a server ended on its own: try again, how soon, with how much memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from toolkit.serving.diagnose import Diagnosis


@dataclass(frozen=True)
class RecoveryPolicy:
    """When a crashed server is started again; seconds.

    ``crash_limit`` crashes within ``crash_window`` are a crash loop. The back-off doubles from
    ``backoff`` to ``max_backoff`` and starts anew after ``steady`` seconds of service. Out of
    memory, the KV cache shrinks to ``kv_step`` of what it was, not below ``kv_minimum`` of the
    whole.
    """

    crash_limit: int = 5
    crash_window: float = 300.0
    backoff: float = 0.5
    max_backoff: float = 30.0
    steady: float = 60.0
    kv_step: float = 0.7
    kv_minimum: float = 0.2


@dataclass(frozen=True)
class Ending:
    """How one life of the server ended. ``served`` is how long it was ready, None if never."""

    reason: str
    out_of_memory: bool
    diagnosis: Diagnosis | None
    served: float | None


@dataclass(frozen=True)
class Decision:
    """Start again after ``delay`` seconds with ``kv_scale``, or give up and say ``why``."""

    action: Literal["restart", "choose_ports", "give_up"]
    delay: float = 0.0
    kv_scale: float = 1.0
    why: str = ""


class Recovery:
    """Decides after every ending; remembers the endings before."""

    def __init__(self, policy: RecoveryPolicy, *, any_port: bool) -> None:
        self._policy = policy
        self._any_port = any_port
        self._crashes: list[float] = []
        self._in_a_row = 0
        self._was_ready = False
        self._kv_scale = 1.0

    def decide(self, ending: Ending, at: float) -> Decision:
        """What to do after ``ending``, which came at monotonic time ``at``."""
        policy = self._policy
        if ending.served is not None:
            self._was_ready = True
            if ending.served >= policy.steady:
                self._in_a_row = 0
        self._crashes = [each for each in self._crashes if at - each < policy.crash_window]
        self._crashes.append(at)
        self._in_a_row += 1
        if len(self._crashes) >= policy.crash_limit:
            return self._give_up(
                f"crash loop: {len(self._crashes)} crashes in {policy.crash_window:.0f} s"
            )
        if ending.out_of_memory:
            return self._shrink()
        lost_port = ending.diagnosis is not None and ending.diagnosis.kind == "port"
        if not self._was_ready and lost_port and self._any_port:
            return Decision("choose_ports", kv_scale=self._kv_scale)
        if not self._was_ready:
            # It would fail the same way again: nothing but the machine has seen it work.
            return self._give_up("it never became ready")
        return Decision("restart", self._delay(), self._kv_scale)

    def _shrink(self) -> Decision:
        smaller = self._kv_scale * self._policy.kv_step
        if smaller < self._policy.kv_minimum:
            return self._give_up(f"out of memory even with {self._kv_scale:.0%} of the KV cache")
        self._kv_scale = smaller
        return Decision("restart", self._delay(), smaller)

    def _delay(self) -> float:
        wait = self._policy.backoff * 2 ** (self._in_a_row - 1)
        return float(min(wait, self._policy.max_backoff))

    def _give_up(self, why: str) -> Decision:
        return Decision("give_up", kv_scale=self._kv_scale, why=why)
