"""The figures of a report by the names that people type: ``ttft_p95``, ``output_throughput``."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from toolkit.bench.metrics import BY_NAME, PERCENTILES, SAMPLED, TOTALS, Sampled, Total
from toolkit.errors import SpecError

STATS = ("mean", *(f"p{percent:g}" for percent in PERCENTILES))
_MEDIAN = "p50"
_ALIASES = {
    "throughput": "output_throughput",
    "output_tokens_per_s": "output_throughput",
    "tokens_per_s": "output_throughput",
    "requests_per_s": "request_throughput",
}


@dataclass(frozen=True)
class Figure:
    """A total, or with ``stat`` one figure of a distribution."""

    metric: str
    stat: str | None = None

    @property
    def declared(self) -> Sampled | Total:
        """The metric."""
        return BY_NAME[self.metric]

    @property
    def key(self) -> str:
        """Its name in a repeat's figures."""
        return f"{self.metric}.{self.stat}" if self.stat else self.metric

    @property
    def name(self) -> str:
        """Its name in expressions."""
        return f"{self.metric}_{self.stat}" if self.stat else self.metric

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.declared.title}, {self.stat}" if self.stat else self.declared.title

    @property
    def is_share(self) -> bool:
        """Shares are compared in points: of nothing there is no percentage."""
        return self.declared.unit == "share"


HEADLINES = (
    Figure("output_throughput"),
    Figure("request_throughput"),
    *(Figure(metric, stat) for metric in ("ttft", "itl", "tpot", "e2e") for stat in ("p50", "p95")),
    Figure("goodput"),
    Figure("kv_reuse"),
    Figure("draft_acceptance"),
    Figure("error_share"),
)
"""What a comparison without limits shows."""


def names() -> tuple[str, ...]:
    """Every name that :func:`figure` knows."""
    sampled = (f"{metric.name}_{stat}" for metric in SAMPLED for stat in STATS)
    return (*(total.name for total in TOTALS), *sampled)


def figure(text: str, where: str) -> Figure:
    """The figure of a name; a distribution's name alone means its median.

    Raises:
        SpecError: there is none of this name; the hint has the nearest.
    """
    name = text.lower().replace(".", "_")
    name = _ALIASES.get(name, name)
    if name in BY_NAME:
        return Figure(name, _MEDIAN if isinstance(BY_NAME[name], Sampled) else None)
    metric, _, stat = name.rpartition("_")
    if stat in STATS and isinstance(BY_NAME.get(metric), Sampled):
        return Figure(metric, stat)
    near = get_close_matches(name, (*names(), *BY_NAME, *_ALIASES), n=3)
    raise SpecError(
        f"there is no metric {text!r}",
        where=where,
        hint=f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(BY_NAME)}",
    )
