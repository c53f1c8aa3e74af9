"""What became of the simulated requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from toolkit.gateway.simulation.fitting import RequestSample


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when what happened to it; None where it never did.

    ``ended`` is ``done``, ``overdue``, ``failed`` (its replica, after a token), ``unfinished`` (the
    simulation stopped) or the reason of a refusal. ``itl_s`` is the mean time between its tokens.
    """

    id: str
    request_class: str
    ended: str
    arrived: float
    prompt_tokens: int
    replica: str | None = None
    sent_at: float | None = None
    first_token_at: float | None = None
    ended_at: float | None = None
    output_tokens: int = 0
    cached_tokens: int = 0
    owner: str = ""

    @property
    def queue_s(self) -> float | None:
        """From its arrival until it is sent to an engine."""
        return None if self.sent_at is None else self.sent_at - self.arrived

    @property
    def ttft_s(self) -> float | None:
        """From its arrival to the first token."""
        return None if self.first_token_at is None else self.first_token_at - self.arrived

    @property
    def e2e_s(self) -> float | None:
        """From its arrival to the last token."""
        return None if self.ended_at is None else self.ended_at - self.arrived

    @property
    def itl_s(self) -> float | None:
        """Mean time between two tokens."""
        if self.ended_at is None or self.first_token_at is None or self.output_tokens < 2:
            return None
        return (self.ended_at - self.first_token_at) / (self.output_tokens - 1)

    def sample(self) -> RequestSample | None:
        """For fitting an engine to what another one did."""
        if self.ended != "done" or self.sent_at is None or self.first_token_at is None:
            return None
        return RequestSample(
            sent_at=self.sent_at,
            first_token_at=self.first_token_at,
            ended_at=self.ended_at or self.first_token_at,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
        )


def percentile(values: Iterable[float | None], share: float) -> float:
    """By linear interpolation between the two nearest ranks; NaN of nothing. None is left out."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return math.nan
    place = share * (len(known) - 1)
    low = math.floor(place)
    high = min(low + 1, len(known) - 1)
    return known[low] + (place - low) * (known[high] - known[low])


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """One class: how many, and percentiles in seconds."""

    request_class: str
    requests: int
    ended: dict[str, int]
    queue_s: tuple[float, float, float]
    ttft_s: tuple[float, float, float]
    itl_s: tuple[float, float, float]
    e2e_s: tuple[float, float, float]
    longest_queue_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """A finished simulation."""

    outcomes: tuple[Outcome, ...]

    def of(self, request_class: str | None = None, since: float = 0.0) -> list[Outcome]:
        """Those of a class (or all) that came at ``since`` or later."""
        return [
            one
            for one in self.outcomes
            if one.arrived >= since and request_class in (None, one.request_class)
        ]

    def summary(self, since: float = 0.0) -> tuple[ClassSummary, ...]:
        """By class; percentiles are the 50th, 95th and 99th."""
        return tuple(
            _summary(name, self.of(name, since))
            for name in sorted({one.request_class for one in self.outcomes})
        )

    def tokens_per_s(self, begin: float, end: float) -> float:
        """Tokens computed and generated in a span, by the second; cached ones do not count.

        A request's tokens are spread evenly over the time they took.
        """
        total = 0.0
        for one in self.outcomes:
            if one.sent_at is None or one.first_token_at is None:
                continue
            uncached = one.prompt_tokens - one.cached_tokens
            total += uncached * _overlap(one.sent_at, one.first_token_at, begin, end)
            if one.ended_at is not None:
                total += one.output_tokens * _overlap(one.first_token_at, one.ended_at, begin, end)
        return total / (end - begin)

    def hit_rate(self, since: float = 0.0) -> float:
        """Share of prompt tokens that came from the KV cache."""
        answered = [one for one in self.of(since=since) if one.first_token_at is not None]
        prompts = sum(one.prompt_tokens for one in answered)
        return sum(one.cached_tokens for one in answered) / prompts if prompts else 0.0


def _overlap(first: float, last: float, begin: float, end: float) -> float:
    if last <= first:
        return 1.0 if begin <= first < end else 0.0
    return max(0.0, min(last, end) - max(first, begin)) / (last - first)


def _summary(name: str, outcomes: Sequence[Outcome]) -> ClassSummary:
    ended: dict[str, int] = {}
    for one in outcomes:
        ended[one.ended] = ended.get(one.ended, 0) + 1

    def spread(of: Callable[[Outcome], float | None]) -> tuple[float, float, float]:
        values = [of(one) for one in outcomes]
        return percentile(values, 0.5), percentile(values, 0.95), percentile(values, 0.99)

    return ClassSummary(
        request_class=name,
        requests=len(outcomes),
        ended=ended,
        queue_s=spread(lambda one: one.queue_s),
        ttft_s=spread(lambda one: one.ttft_s),
        itl_s=spread(lambda one: one.itl_s),
        e2e_s=spread(lambda one: one.e2e_s),
        longest_queue_s=max((one.queue_s or 0.0 for one in outcomes), default=0.0),
    )
