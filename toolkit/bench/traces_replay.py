"""What is sent of a trace, and how that differs from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from toolkit.bench.traces import Arrival, Trace
from toolkit.errors import SpecError


@dataclass(frozen=True)
class Replay:
    """``arrivals`` in order of time; ``changed`` of them are shorter than in the trace, and
    ``skipped`` were too long and are left out."""

    trace: Trace
    arrivals: tuple[Arrival, ...]
    changed: int
    skipped: int

    @property
    def rate(self) -> float:
        """Requests a second on average, at the trace's own speed; 0 if all come at once."""
        span = self.arrivals[-1].at - self.arrivals[0].at
        return (len(self.arrivals) - 1) / span if span else 0.0

    def notes(self) -> Iterator[str]:
        """What a reader has to know of the difference."""
        trace, total = self.trace, len(self.arrivals) + self.skipped
        if self.changed:
            yield f"trace: {self.changed} of {total} requests were shortened to the longest allowed"
        if self.skipped:
            yield f"trace: {self.skipped} of {total} requests were left out, being too long"
        if trace.empty:
            yield f"trace: {trace.empty} requests without prompt or answer were left out"
        if trace.more:
            yield f"trace: it goes on after the first {total + trace.empty} lines (workload.limit)"
        if trace.ignored:
            yield f"trace: not replayed: {', '.join(trace.ignored)}"


@dataclass(frozen=True)
class Longest:
    """How many tokens may be sent and asked for, and both together; None: any number."""

    prompt: int | None = None
    output: int | None = None
    total: int | None = None

    def hold(self, one: Arrival) -> Arrival:
        """``one``, shortened where it has to be; of its sum, the answer before the prompt."""
        total = self.total or one.prompt_tokens + one.output_tokens
        prompt = min(one.prompt_tokens, self.prompt or one.prompt_tokens, total - 1)
        output = min(one.output_tokens, self.output or one.output_tokens, total - prompt)
        return replace(one, prompt_tokens=prompt, output_tokens=output)


def replay(trace: Trace, longest: Longest, skip: bool) -> Replay:
    """Hold the requests of ``trace`` to the longest allowed.

    Raises:
        SpecError: none is left.
    """
    kept, changed, skipped = [], 0, 0
    for one in trace.arrivals:
        held = longest.hold(one)
        if held != one and skip:
            skipped += 1
            continue
        changed += held != one
        kept.append(held)
    if not kept:
        raise SpecError(
            f"all {skipped} requests of the trace are longer than allowed",
            where="workload.longer",
            hint="longer: clamp shortens them; or raise the max_..._tokens that are set",
        )
    return Replay(trace, tuple(kept), changed, skipped)
