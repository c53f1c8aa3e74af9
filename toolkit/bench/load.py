"""When requests are sent: by users who wait for their answers, or by the clock."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from toolkit.spec.section import Section
from toolkit.spec.units import Duration


class ClosedLoop(Section):
    """``concurrency`` users; each sends its next request when the last one's answer is in.

    The load adapts to the server: good for the throughput at a given number of users, not for
    latency under a given traffic.
    """

    type: Literal["closed"] = "closed"
    concurrency: int = Field(default=8, ge=1, le=16384, description="Users at once.")
    think_time: Duration = Field(
        default=0.0, description="From the end of a session to the user's next one."
    )

    @property
    def label(self) -> str:
        """Short, for tables."""
        return f"{self.concurrency} user{'s' if self.concurrency > 1 else ''}"

    @property
    def least(self) -> int:
        """Requests that a window has to see begin: one a user."""
        return self.concurrency


class OpenLoop(Section):
    """Sessions that start at given times, whatever the server does.

    ``poisson`` has exponential gaps, as many independent users make; ``constant`` equal gaps;
    ``burst`` starts ``burst_size`` at once and pauses, with the same rate on average.
    """

    type: Literal["open"]
    rate: float = Field(gt=0, le=100_000, description="Sessions started a second.")
    arrivals: Literal["poisson", "constant", "burst"] = Field(
        default="poisson", description="How the starts are spread."
    )
    burst_size: int = Field(default=8, ge=1, le=10_000, description="Sessions of one burst.")

    @property
    def label(self) -> str:
        """Short, for tables."""
        return f"{self.rate:g}/s {self.arrivals}"

    @property
    def least(self) -> int:
        """Requests that a window has to see begin."""
        return 1

    def offsets(self, dice: random.Random) -> Iterator[float]:
        """Seconds from the beginning at which sessions start, endlessly."""
        if self.arrivals == "poisson":
            now = 0.0
            while True:
                now += dice.expovariate(self.rate)
                yield now
        size = self.burst_size if self.arrivals == "burst" else 1
        for number in itertools.count():
            yield number // size * size / self.rate


class TraceLoop(Section):
    """The arrivals of a trace (workload type ``trace``), faster or slower by one factor.

    ``rate`` sets the factor by the mean rate that shall come out.
    """

    type: Literal["trace"]
    speedup: float = Field(default=1.0, gt=0, le=100_000, description="2: in half the time.")
    rate: float | None = Field(
        default=None, gt=0, le=100_000, description="Requests a second on average."
    )

    @property
    def label(self) -> str:
        """Short, for tables."""
        if self.rate is not None:
            return f"{self.rate:g}/s trace"
        return "trace" if self.speedup == 1 else f"trace x{self.speedup:g}"

    @property
    def least(self) -> int:
        """Requests that a window has to see begin."""
        return 1

    def offsets(self, arrivals: Sequence[float]) -> Iterator[float]:
        """Seconds from the first arrival at which requests start.

        Args:
            arrivals: The trace's own times in seconds, ascending.
        """
        speedup = self.speedup
        if self.rate is not None and arrivals:
            span = arrivals[-1] - arrivals[0]
            speedup = span * self.rate / max(1, len(arrivals) - 1)
        for at in arrivals:
            yield (at - arrivals[0]) / speedup if speedup else 0.0


Load = Annotated[ClosedLoop | OpenLoop | TraceLoop, Field(discriminator="type")]


class Stop(Section):
    """How much is measured, and what goes before.

    With ``requests``: that many, after ``warmup_requests`` that run to their end first. The
    window of measurement begins with the first and ends with the last answer.

    With ``duration`` (the default): one steady load; the window opens after ``warmup``. What
    was sent before it opened does not count, what was sent in it is waited for after it
    closed, and tokens count for throughput if they arrived while it was open. Where requests
    take longer than the window, it stays open until every user has begun one in it.
    """

    requests: int | None = Field(default=None, ge=1, le=10_000_000)
    warmup_requests: int = Field(default=4, ge=0, le=1_000_000)
    duration: Duration = Field(default=20.0, gt=0, description="Length of the window.")
    warmup: Duration = Field(default=3.0, description="Load before the window.")
