"""Is a benchmark worse than another one? Exit code 5 if so, beyond what chance explains.

python compare_bench.py BASELINE NEW [--max-regression 0.10]

Both are ``report.json`` of ``toolkit bench``. A figure counts as worse only if it lost more than
``--max-regression`` and the 95 % confidence intervals, where both have one, do not overlap.
Without a baseline there is nothing to compare, which is said and is no failure; reports of
different machines or workloads are not compared either.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIGURES = (
    ("ttft.p50", "ms", -1),
    ("ttft.p95", "ms", -1),
    ("tpot.p50", "ms", -1),
    ("e2e.p95", "ms", -1),
    ("output_throughput", "tokens/s", 1),
    ("request_throughput", "requests/s", 1),
)
"""Name, unit, and whether more is better (1) or worse (-1)."""


@dataclass(frozen=True)
class Change:
    """One figure in both reports; ``loss`` is relative, above 0 where the new one is worse."""

    load: str
    name: str
    unit: str
    old: float
    new: float
    loss: float
    certain: bool

    def worse(self, limit: float) -> bool:
        """Whether it lost more than ``limit``, and not by chance."""
        return self.certain and self.loss > limit

    @property
    def row(self) -> str:
        return (
            f"{self.load:<12} {self.name:<20} {self.old:>10.4g} {self.new:>10.4g} "
            f"{self.unit:<12} {-self.loss:>+8.1%}"
        )


def estimates(point: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every figure of one load by its name."""
    found = dict(point["totals"])
    for name, distribution in point["distributions"].items():
        for stat, estimate in distribution["stats"].items():
            found[f"{name}.{stat}"] = estimate
    return found


def overlap(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the confidence intervals meet; not where one of the two has none."""
    if None in (old["low"], old["high"], new["low"], new["high"]):
        return False
    return bool(old["low"] <= new["high"] and new["low"] <= old["high"])


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """The figures that both reports have, load by load."""
    before = {point["label"]: estimates(point) for point in old["points"]}
    found = []
    for point in new["points"]:
        known, now = before.get(point["label"], {}), estimates(point)
        for name, unit, sign in FIGURES:
            if name not in known or name not in now or not known[name]["value"]:
                continue
            was, became = known[name]["value"], now[name]["value"]
            loss = sign * (was - became) / was
            certain = not overlap(known[name], now[name])
            found.append(Change(point["label"], name, unit, was, became, loss, certain))
    return found


def incomparable(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Why the two say nothing about each other; None if they do."""
    for part, key in (("machine", "cpu"), ("machine", "cores")):
        if old[part][key] != new[part][key]:
            return f"{part} {key}: {old[part][key]!r}, now {new[part][key]!r}"
    if old["workload"] != new["workload"]:
        return "the workload differs"
    return None


def main(arguments: list[str]) -> int:
    """Compare two files and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("baseline", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--max-regression", type=float, default=0.10)
    options = parser.parse_args(arguments)
    if not options.baseline.is_file():
        print(f"no baseline at {options.baseline}: nothing to compare with")
        return 0
    old, new = (json.loads(path.read_text()) for path in (options.baseline, options.new))
    reason = incomparable(old, new)
    if reason:
        print(f"not compared with the baseline: {reason}")
        return 0
    found = changes(old, new)
    if not found:
        print("not compared with the baseline: no load and figure is in both")
        return 0
    compared = {change.load for change in found}
    for label in (point["label"] for point in new["points"] if point["label"] not in compared):
        print(f"{label}: not in the baseline")
    for change in found:
        mark = "  WORSE" if change.worse(options.max_regression) else ""
        print(change.row + mark)
    worse = [change for change in found if change.worse(options.max_regression)]
    if worse:
        print(
            f"error: {len(worse)} figures lost more than {options.max_regression:.0%} against "
            f"{options.baseline}",
            file=sys.stderr,
        )
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
