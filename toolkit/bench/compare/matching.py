"""Which loads of two reports belong together, and what else is not the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.bench.report import BenchReport, Point
from toolkit.errors import SpecError

Pair = tuple[Point, Point]
_ERRORS_THAT_BEND = 0.01


def pairs(base: BenchReport, new: BenchReport) -> tuple[Pair, ...]:
    """The loads that both measured, in the order of ``new``.

    Raises:
        SpecError: the reports answer different questions; ``details`` has what differs.
    """
    differing = [*_changed("workload", _plain(base.workload), _plain(new.workload))]
    for name in ("prompt_unit", "tokens_counted_by"):
        differing += _changed(name, getattr(base, name), getattr(new, name))
    if differing:
        raise SpecError(
            "these reports cannot be compared: they measured different work",
            hint="measure both with the same scenario and the same --with",
            details=differing,
        )
    left = list(base.points)
    found = []
    for point in new.points:
        twin = next((one for one in left if one.load == point.load), None)
        if twin is not None:
            left.remove(twin)
            found.append((twin, point))
    if not found:
        raise SpecError(
            "these reports have no load in common",
            hint="measure both with the same --concurrency or --rate",
            details=[
                f"base: {', '.join(point.label for point in base.points)}",
                f"new: {', '.join(point.label for point in new.points)}",
                *_found_rates(base, new),
            ],
        )
    return tuple(found)


def differences(base: BenchReport, new: BenchReport, common: tuple[Pair, ...]) -> Iterator[str]:
    """What a reader has to know before blaming the change on what was changed."""
    for name in ("target", "machine", "stop", "objectives"):
        yield from _changed(name, _plain(getattr(base, name)), _plain(getattr(new, name)))
    yield from _found_rates(base, new)
    for side, report, index in (("base", base, 0), ("new", new, 1)):
        if report.failure:
            yield f"{side} ended early: {report.failure}"
        elif report.partial:
            yield f"{side} was interrupted"
        matched = [pair[index] for pair in common]
        alone = [point.label for point in report.points if point not in matched]
        if alone:
            yield f"only {side} has {', '.join(alone)}"
        for point in matched:
            if any(repeat.client.saturated for repeat in point.repeats):
                yield f"{side}, {point.label}: the client was saturated"
    for before, after in common:
        shares = [point.totals.get("error_share") for point in (before, after)]
        failed = [share.value if share else 0.0 for share in shares]
        if failed[1] > failed[0] + _ERRORS_THAT_BEND:
            yield (
                f"{after.label}: {failed[1]:.1%} of the requests failed ({failed[0]:.1%} in "
                "base), and those have no latency"
            )


def _found_rates(base: BenchReport, new: BenchReport) -> Iterator[str]:
    """What searches for the highest rate found: each tries loads of its own."""
    for side, report in (("base", base), ("new", new)):
        if report.found_rate:
            yield f"{side}: {report.found_rate.sentence}"


def same_objectives(base: BenchReport, new: BenchReport) -> bool:
    """Whether goodput means the same in both."""
    return base.objectives == new.objectives


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return value.model_dump(mode="json", exclude_none=True)


def _changed(name: str, before: Any, after: Any) -> Iterator[str]:
    """The leaves of two JSON values that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from _changed(f"{name}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield f"{name}: {_text(before)} in base, {_text(after)} in new"


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
