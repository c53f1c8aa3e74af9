"""Many measurements as tables: medians over rounds, and ratios of what was measured in turn."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from peer_loads import Measurement

LOADED = 0.15
"""More than this share of the cores busy with other things, and the machine was not quiet."""


@dataclass(frozen=True)
class Ratio:
    """How many times better one is than another, round by round."""

    workload: str
    users: int
    rival: str
    throughput: tuple[float, ...]
    ttft: tuple[float, ...]


def of_load(found: Iterable[Measurement], workload: str, users: int) -> list[Measurement]:
    """Those of one workload and number of users."""
    return [one for one in found if one.workload == workload and one.users == users]


def peers(found: Iterable[Measurement]) -> list[str]:
    """Names in the order of their first measurement."""
    return list(dict.fromkeys(one.peer for one in found))


def ratios(found: Sequence[Measurement], ours: str, prefix: str) -> Iterator[Ratio]:
    """Our way against the best of the rivals whose names begin with ``prefix``.

    The best one is that of the highest median throughput at this load. Above 1 is better for us:
    throughput by division, TTFT by the rival's divided by ours.
    """
    for workload, users in dict.fromkeys((one.workload, one.users) for one in found):
        here = of_load(found, workload, users)
        mine = {one.round: one for one in here if one.peer == ours}
        rivals = {one.peer for one in here if one.peer.startswith(prefix)}
        if not mine or not rivals:
            continue
        best = max(rivals, key=lambda name: _median(here, name, "tokens_per_s"))
        pairs = [(mine[o.round], o) for o in here if o.peer == best and o.round in mine]
        yield Ratio(
            workload,
            users,
            best,
            tuple(our.tokens_per_s / other.tokens_per_s for our, other in pairs),
            tuple(other.ttft_p50 / our.ttft_p50 for our, other in pairs),
        )


def figures_table(found: Sequence[Measurement], workload: str) -> Iterator[str]:
    """A row for each number of users and peer."""
    yield (
        "| users | server | tokens/s | TTFT p50 ms | TTFT p95 ms | ITL p50 ms | TPOT p50 ms "
        "| E2E p50 ms | server CPU s | prompt from cache |"
    )
    yield "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    chosen = [one for one in found if one.workload == workload]
    for users in sorted({one.users for one in chosen}):
        here = of_load(found, workload, users)
        for name in peers(here):
            cells = [_spread(here, name, "tokens_per_s"), _spread(here, name, "ttft_p50")]
            for field in ("ttft_p95", "itl_p50", "tpot_p50", "e2e_p50", "server_cpu"):
                cells.append(_number(_median(here, name, field)))
            cells.append(f"{_median(here, name, 'kv_reuse'):.0%}")
            yield f"| {users} | {name} | {' | '.join(cells)} |"


def ratio_table(found: Sequence[Measurement], ours: str, prefix: str) -> Iterator[str]:
    """A row for each workload and number of users."""
    yield "| workload | users | best of the others | tokens/s | median TTFT |"
    yield "| --- | ---: | --- | ---: | ---: |"
    for one in ratios(found, ours, prefix):
        cells = " | ".join(_times(values) for values in (one.throughput, one.ttft))
        yield f"| {one.workload} | {one.users} | {one.rival} | {cells} |"


def quietness(found: Sequence[Measurement]) -> str:
    """Whether the figures can be taken at face value."""
    shares = [one.background for one in found]
    typical, worst = statistics.median(shares), max(shares)
    said = f"before a measurement {typical:.0%} of the cores were busy (median; most {worst:.0%})"
    saturated = sum(one.client_saturated for one in found)
    if saturated:
        said += f"; in {saturated} of {len(found)} the client was late with events"
    return f"LOADED machine: {said}" if typical > LOADED else f"Quiet machine: {said}"


def _median(found: Sequence[Measurement], name: str, field: str) -> float:
    return statistics.median(getattr(one, field) for one in found if one.peer == name)


def _spread(found: Sequence[Measurement], name: str, field: str) -> str:
    """Median, lowest and highest."""
    values = [getattr(one, field) for one in found if one.peer == name]
    middle = f"{statistics.median(values):,.0f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):,.0f} to {max(values):,.0f})"


def _number(value: float) -> str:
    """Three figures, and never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.2f}x"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"
