"""A search for the highest rate as a table and a plot."""

from __future__ import annotations

from toolkit.bench.rows import Table, number
from toolkit.bench.svg import Line, line_chart
from toolkit.bench.sweep_report import FoundRate, Probe

_COLUMNS = ("sessions/s", "verdict", "in SLO", "goodput/s", "requests", "window s", "client late")
_VERDICTS = {"met": "met", "missed": "missed", "client": "client saturated"}


def search_table(found: FoundRate) -> Table:
    """One row a window, by rate."""
    rows = [
        (
            f"{probe.rate:g}",
            _verdict(found, probe),
            f"{probe.share:.1%}",
            number(probe.goodput),
            str(probe.judged),
            f"{probe.window_s:.0f}",
            "yes" if probe.client_saturated else "no",
        )
        for probe in sorted(found.probes, key=lambda probe: probe.rate)
    ]
    return Table(f"Rates tried, for {found.search.share:.1%} in the SLO", _COLUMNS, tuple(rows))


def goodput_plot(found: FoundRate) -> str:
    """Requests within the SLO over the rate that was offered, and what all would be."""
    by_rate: dict[float, list[Probe]] = {}
    for probe in found.probes:
        by_rate.setdefault(probe.rate, []).append(probe)
    # A session may be several requests, so what was offered is counted in them too.
    goodput = [(rate, _mean(probes, good=True)) for rate, probes in sorted(by_rate.items())]
    offered = [(rate, _mean(probes, good=False)) for rate, probes in sorted(by_rate.items())]
    lines = [
        Line("within the SLO", goodput, dots=True),
        Line("all that were asked", offered),
    ]
    wide = bool(goodput) and goodput[-1][0] > 20 * goodput[0][0]
    return line_chart(lines, "offered sessions/s", "requests/s", log_x=wide)


def _mean(probes: list[Probe], *, good: bool) -> float:
    requests = sum(probe.good if good else probe.judged for probe in probes)
    return requests / sum(probe.window_s for probe in probes)


def _verdict(found: FoundRate, probe: Probe) -> str:
    if probe.partial:
        return "interrupted"
    verdict = found.verdicts.get(probe.label)
    return _VERDICTS[verdict] if verdict else "undecided"
