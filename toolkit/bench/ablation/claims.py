"""What such deployments are said to gain, held against what was measured here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.bench.ablation.figures import BY_NAME
from toolkit.bench.ablation.report import AblationReport, Comparison, LoadResults
from toolkit.bench.ablation.words import times_text
from toolkit.bench.report import Estimate
from toolkit.bench.rows import Table


@dataclass(frozen=True)
class Claim:
    """``times`` better in ``metric``: of one feature's own step, or of full (``feature`` empty)
    against the first rung."""

    feature: str
    metric: str
    times: float
    text: str


CLAIMS: tuple[Claim, ...] = (
    Claim("", "e2e.p50", 5.1, "5.1 times lower latency"),
    Claim("", "output_throughput", 3.7, "3.7 times the tokens"),
    Claim("kv-reuse", "ttft_later.p50", 5.0, "80% lower TTFT of later turns"),
    Claim("quantization", "output_throughput", 1.5, "1.5 to 2 times as fast"),
    Claim("speculation", "tpot.p50", 2.5, "100 tokens in the time of 40"),
)


def claims_table(report: AblationReport, load: LoadResults) -> Table:
    """Each claim whose rungs were measured, and whether its interval bears it out."""
    rows = [
        (
            claim.text,
            _what(report, found),
            BY_NAME[claim.metric].title,
            times_text(found.times),
            judged(found.times, claim.times),
        )
        for claim in CLAIMS
        for found in _found(report, load, claim)
    ]
    heads = ("claimed", "measured", "figure", "times better", "verdict")
    return Table(f"{load.label}: claims", heads, tuple(rows))


def judged(times: Estimate, claimed: float) -> str:
    """``reached`` and ``missed`` only where the whole interval says so."""
    if times.low is None or times.high is None:
        return f"{'above' if times.value >= claimed else 'below'} in one round"
    if times.low >= claimed:
        return "reached"
    if times.high < claimed:
        return "missed"
    return "cannot be told"


def _found(report: AblationReport, load: LoadResults, claim: Claim) -> Iterator[Comparison]:
    for rung in report.rungs[1:]:
        if claim.feature:
            against, wanted = "previous", rung.is_step and rung.adds == (claim.feature,)
        else:
            against, wanted = "first", rung.is_full
        for one in report.comparisons if wanted else ():
            here = (one.load, one.rung, one.against, one.metric)
            if here == (load.label, rung.key, against, claim.metric):
                yield one


def _what(report: AblationReport, found: Comparison) -> str:
    return f"{report.facts(found.rung).title} against {report.facts(found.base).title}"
