"""What is read from AIPerf's summary and from the toolkit's report is the same thing; what both
are given asks for the same."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "peers"))

import aiperf_files

from toolkit.bench.scenario import load_scenario
from toolkit.bench.vocabulary import Words
from toolkit.bench.workload import Material, PromptFile

RECORDED = Path(__file__).parent / "recorded" / "profile_export_aiperf.json"
"""AIPerf 0.13.0 against paced_server.py: 12 requests of 4 users, first token after 150 ms, one
every 25 ms; metrics that nobody reads here taken out."""


def recorded() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(RECORDED.read_text())
    return found


def test_reads_what_aiperf_writes() -> None:
    found = aiperf_files.read_aiperf(recorded())
    assert found.requests == 12
    assert found.output_tokens == 818
    assert found.tokens_per_s == pytest.approx(130.61, abs=0.01)
    assert found.ttft_p50 == pytest.approx(151.61, abs=0.01)
    assert found.tpot_p50 == pytest.approx(25.0, abs=0.01)
    assert found.e2e_p50 == pytest.approx(1863.55, abs=0.01)


def test_refuses_another_unit() -> None:
    summary = recorded()
    summary["time_to_first_token"]["unit"] = "s"
    with pytest.raises(ValueError, match=r"time_to_first_token in s, not in ms"):
        aiperf_files.read_aiperf(summary)


def test_refuses_a_summary_without_a_metric() -> None:
    summary = recorded()
    del summary["inter_token_latency"]
    with pytest.raises(KeyError, match="inter_token_latency"):
        aiperf_files.read_aiperf(summary)


def test_both_are_asked_the_same(tmp_path: Path) -> None:
    asked = aiperf_files.make_requests(Words(), 20, "salt")
    aiperf_files.write_for_aiperf(asked, tmp_path / "aiperf.jsonl")
    aiperf_files.write_for_toolkit(asked, tmp_path / "bench.yaml")

    lines = [json.loads(line) for line in (tmp_path / "aiperf.jsonl").read_text().splitlines()]
    theirs = [(line["text"], line["output_length"], line["extra"]["min_tokens"]) for line in lines]
    scenario = load_scenario(str(tmp_path / "bench.yaml"))
    assert isinstance(scenario.workload, PromptFile)
    turns = [session.turns for session in scenario.workload.sessions(Material())]
    ours = [(one.text, one.max_tokens, one.min_tokens) for (one,) in turns]

    assert ours == theirs
    assert ours == [(one.prompt, one.tokens, one.tokens) for one in asked]
    assert scenario.stop.requests == 20
    assert scenario.stop.warmup_requests == 0


def test_requests_differ_between_rounds_and_have_the_lengths_that_are_told() -> None:
    first, again, other = (aiperf_files.make_requests(Words(), 50, s) for s in ("a", "a", "b"))
    assert first == again
    assert not {one.prompt for one in first} & {one.prompt for one in other}
    assert all(64 <= Words().count(one.prompt) <= 192 for one in first)
    assert all(32 <= one.tokens <= 96 for one in first)
    assert len({one.tokens for one in first}) > 10


def test_reads_the_toolkits_own_report() -> None:
    dice = random.Random(1)
    values = {name: dice.uniform(1, 100) for name in ("ttft", "tpot", "e2e")}
    spread = {name: {"stats": {"p50": {"value": v}}, "count": 9} for name, v in values.items()}
    spread["output_tokens"] = {"stats": {"mean": {"value": 64.5}}, "count": 10}
    point = {
        "distributions": spread,
        "totals": {"output_throughput": {"value": 123.5}},
        "repeats": [{"completed": 4}, {"completed": 6}],
    }
    found = aiperf_files.read_toolkit({"points": [point]})
    assert found == aiperf_files.Figures(
        123.5, values["ttft"], values["tpot"], values["e2e"], 10, 645
    )
