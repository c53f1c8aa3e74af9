"""How fast an engine is, learned while it serves.

Work is measured in *engine-seconds*: prompt tokens that have to be computed times ``prefill_s``
plus output tokens times ``decode_s``, one pair of prices for all replicas of a model, from what
the first one's spec expects of a full engine. The expectation need not be right: ``speed``, the
engine-seconds that a replica gets done in a second, puts it right. It is measured only while
requests wait, for an engine with nothing to do is not slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from toolkit.gateway.scheduling.tickets import ReplicaSpec

_PREFILL_PRIOR = 8000.0  # tokens/s where nothing is known; `speed` mends the scale, and
_DECODE_PRIOR = 1000.0  # only the ratio of the two stays a guess
_WINDOW_S = 1.0
_WINDOW_ENDS = 8  # answers that must end in a window before it counts
_MEMORY = 0.2  # of a new window
_ROUND_TRIP_GAPS = 1.5
_LINE_EVERY = 8
_SAMPLE_MEMORY = 0.05  # of a new request


@dataclass(slots=True)
class Average:
    """A mean that forgets: plain at first, exponential once it has samples enough."""

    memory: float = _SAMPLE_MEMORY
    value: float = 0.0
    count: int = 0

    def add(self, sample: float) -> None:
        """One more sample."""
        self.count += 1
        self.value += max(self.memory, 1 / self.count) * (sample - self.value)

    def known(self, otherwise: float) -> float:
        """The mean, or what to believe before there is a sample."""
        return self.value if self.count else otherwise


class Line:
    """``y = base + slope * x`` through fading samples, neither of the two below zero."""

    def __init__(self, memory: float = 0.02) -> None:
        self._keep = 1 - memory
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self.samples = 0
        self.slope = self.base = 0.0

    def add(self, x: float, y: float) -> None:
        """One more sample; the line is drawn anew now and then."""
        keep = self._keep
        self._n = self._n * keep + 1
        self._x = self._x * keep + x
        self._y = self._y * keep + y
        self._xx = self._xx * keep + x * x
        self._xy = self._xy * keep + x * y
        self.samples += 1
        if self.samples < _LINE_EVERY or self.samples % _LINE_EVERY == 0:
            self._draw()

    def at(self, x: float) -> float:
        """The line's value, 0 without samples."""
        return self.base + self.slope * x

    def _draw(self) -> None:
        spread = self._n * self._xx - self._x**2
        slope = 0.0
        if spread > 1e-9 * self._n * self._xx:
            slope = max(0.0, (self._n * self._xy - self._x * self._y) / spread)
        if self._xx:  # a line that would leave the axis below zero goes through zero instead
            slope = min(slope, self._xy / self._xx)
        self.slope = slope
        self.base = max(0.0, (self._y - slope * self._x) / self._n)


@dataclass(slots=True)
class Window:
    """What was served since the last look, and whether there was always more to do."""

    since: float = 0.0
    work_s: float = 0.0
    tokens: int = 0
    ended: int = 0
    pressed: bool = False


@dataclass(frozen=True, slots=True)
class Prices:
    """Engine-seconds of one token."""

    prefill_s: float
    decode_s: float

    @classmethod
    def of(cls, spec: ReplicaSpec) -> Prices:
        """What the spec expects, or a guess."""
        return cls(
            prefill_s=1 / (spec.prefill_tokens_per_s or _PREFILL_PRIOR),
            decode_s=1 / (spec.decode_tokens_per_s or _DECODE_PRIOR),
        )

    def cost(self, prompt_tokens: float, output_tokens: float) -> float:
        """Engine-seconds of so many computed prompt tokens and generated ones."""
        return prompt_tokens * self.prefill_s + output_tokens * self.decode_s


@dataclass(slots=True)
class Pace:
    """What was measured of one replica."""

    prices: Prices
    expected_speed: float
    speed: Average = field(default_factory=lambda: Average(_MEMORY))
    tokens_per_s: Average = field(default_factory=lambda: Average(_MEMORY))
    ends_per_s: Average = field(default_factory=lambda: Average(_MEMORY))
    token_gap_s: Average = field(default_factory=Average)
    start_s: Line = field(default_factory=Line)  # sent -> first token, by uncached prompt tokens
    window: Window = field(default_factory=Window)
    ahead: float = 0.0  # requests that end between two steps and the way here and back

    @classmethod
    def of(cls, spec: ReplicaSpec, prices: Prices) -> Pace:
        """Nothing measured yet: the spec's expectation, in the model's prices."""
        decode = spec.decode_tokens_per_s
        return cls(prices, expected_speed=decode * prices.decode_s if decode else 1.0)

    def speed_now(self) -> float:
        """Engine-seconds done in a second, measured or expected."""
        return max(self.speed.known(self.expected_speed), 1e-9)

    def seconds(self, cost_s: float) -> float:
        """How long the whole engine takes for so much work."""
        return cost_s / self.speed_now()

    def served(self, prompt_tokens: int, output_tokens: int) -> None:
        """Tokens that the engine has computed."""
        self.window.work_s += self.prices.cost(prompt_tokens, output_tokens)
        self.window.tokens += output_tokens

    def ended(self, now: float, *, pressed: bool) -> None:
        """A request left the engine; ``pressed``: another one was waiting for its place."""
        window = self.window
        if not pressed:
            self.window = Window(since=now)
            return
        window.ended += 1
        elapsed = now - window.since
        if elapsed < _WINDOW_S or window.ended < _WINDOW_ENDS:
            return
        # The first window after a quiet time holds the filling of the engine: not its pace.
        if window.pressed:
            self.speed.add(window.work_s / elapsed)
            self.tokens_per_s.add(window.tokens / elapsed)
            self.ends_per_s.add(window.ended / elapsed)
            self.ahead = self.ends_per_s.value * _ROUND_TRIP_GAPS * self.token_gap_s.value
        self.window = Window(since=now, pressed=True)

    def answered(self, first_token_at: float, ended_at: float, tokens: int) -> None:
        """A whole answer: what was between its tokens."""
        if tokens > 1 and ended_at > first_token_at:
            self.token_gap_s.add((ended_at - first_token_at) / (tokens - 1))

    def look_ahead(self, slots: int) -> int:
        """Requests to send beyond the slots, so that an ended one is followed at the next step.

        With long answers none.
        """
        return min(math.floor(self.ahead + 0.5), max(1, slots // 8))
