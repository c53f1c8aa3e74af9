"""Limits as people write them: what they mean, and what is said where they mean nothing."""

from __future__ import annotations

import pytest

from toolkit.bench.compare import parse_gate
from toolkit.bench.compare.figures import figure, names
from toolkit.errors import SpecError


@pytest.mark.parametrize(
    ("text", "key", "above", "kind", "limit", "load"),
    [
        ("ttft_p95 > +10%", "ttft.p95", True, "part", 0.1, None),
        ("  itl_p50>+2.5%  ", "itl.p50", True, "part", 0.025, None),
        ("output_throughput < -5% @ 32 users", "output_throughput", False, "part", -0.05,
         "32 users"),
        ("output_tokens_per_s < -5%", "output_throughput", False, "part", -0.05, None),
        ("requests_per_s < 3", "request_throughput", False, "absolute", 3, None),
        ("request_throughput < 3 requests/s", "request_throughput", False, "absolute", 3, None),
        ("ttft_p95 > 500ms", "ttft.p95", True, "absolute", 500, None),
        ("e2e_p99 > 2 s @ 0.5/s poisson", "e2e.p99", True, "absolute", 2000, "0.5/s poisson"),
        ("ttft.p95 > +50ms", "ttft.p95", True, "difference", 50, None),
        ("TTFT > +10%", "ttft.p50", True, "part", 0.1, None),
        ("server_ttft_p90 > +10%", "server_ttft.p90", True, "part", 0.1, None),
        ("tpot_mean > +10%", "tpot.mean", True, "part", 0.1, None),
        ("error_share > 1%", "error_share", True, "absolute", 0.01, None),
        ("error_share > +1%", "error_share", True, "difference", 0.01, None),
        ("good_share < 0.95", "good_share", False, "absolute", 0.95, None),
    ],
)  # fmt: skip
def test_expressions(
    text: str, key: str, above: bool, kind: str, limit: float, load: str | None
) -> None:
    gate = parse_gate(text)
    assert (gate.figure.key, gate.above, gate.kind, gate.load) == (key, above, kind, load)
    assert gate.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("tttf_p95 > +10%", "no metric 'tttf_p95'", "did you mean ttft_p95"),
        ("ttft_p42 > +10%", "no metric 'ttft_p42'", "ttft_p9"),
        ("qwxyz > +10%", "no metric 'qwxyz'", "known: ttft"),
        ("ttft_p95 > 10%", "10% of what?", "+10% or -10%"),
        ("ttft_p95 > 500", "500 of what?", "ms or s"),
        ("ttft_p95 > 500 tokens", "not measured in 'tokens'", "ms or s"),
        ("output_throughput < 5ms", "not measured in 'ms'", "tokens/s"),
        ("output_throughput < -100%", "nothing falls", ""),
        ("ttft_p95 +10%", "no limit", "ttft_p95 > +10%"),
        ("ttft_p95 > fast", "no limit", "ttft_p95 > +10%"),
        ("ttft_p95 > +10% @", "no limit", "ttft_p95 > +10%"),
        ("", "no limit", "ttft_p95 > +10%"),
    ],
)
def test_what_means_nothing_is_refused_with_a_way_out(text: str, message: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_gate(text)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.where == f"--fail-if {text!r}"


def test_every_name_is_understood_and_comes_back() -> None:
    assert len(names()) > 40
    for name in names():
        assert figure(name, "here").name == name
