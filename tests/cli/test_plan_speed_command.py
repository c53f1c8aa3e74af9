"""``toolkit plan`` on times, loads and prices: what is printed, refused and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from config_files import write_config
from plan_reports import report_of

from toolkit.bench.load import ClosedLoop, OpenLoop
from toolkit.bench.report import BenchReport, TargetFacts
from toolkit.capacity.serving import Estimate as Made
from toolkit.capacity.serving import with_running
from toolkit.capacity.traffic import Traffic
from toolkit.checkpoint.architecture import architecture_of
from toolkit.cli.app import run
from toolkit.pipeline.calibrating import observations, read_known
from toolkit.pipeline.planning import make_plan
from toolkit.pipeline.sizing import replica_of
from toolkit.spec.loading import load

FILE = """\
name: chat
model: {source: hf://meta-llama/Llama-3.1-8B-Instruct}
quantization: {weights: fp8, kv_cache: fp8}
engine: {runtime: pytorch}
serving: {gpu: H100}
"""
SEARCH = ["--rate", "30", "--slo-ttft-ms", "500", "--slo-tpot-ms", "30"]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "d.yaml").write_text(FILE)
    config = write_config(tmp_path)
    store = ["--workspace", str(tmp_path / "store")]
    return ["plan", str(tmp_path / "d.yaml"), "--model-config", str(config), *store]


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_plan_says_how_fast(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 0
    printed = capsys.readouterr().out
    assert "tokens/s" in printed
    assert "540 published runs" in printed
    assert run([*words, "--json"]) == 0
    loads = told(capsys)["speed"]["loads"]
    assert [load["running"] for load in loads] == [1, 8, 32, 64]
    assert loads[-1]["output_tokens_per_s"] > 10 * loads[0]["output_tokens_per_s"]


def test_reuse_and_drafts_count_when_their_rates_are_given(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    drafting = ["--set", "engine.speculation={method: ngram, max_draft_len: 4}", "--json"]

    def first(*more: str) -> dict[str, float]:
        assert run([*words, *drafting, *more]) == 0
        return dict(told(capsys)["speed"]["loads"][0])

    plain, reused, drafted = first(), first("--reuse", "0.9"), first("--acceptance", "0.8")
    assert reused["ttft_ms"] < plain["ttft_ms"]
    assert drafted["tpot_ms"] < 0.5 * plain["tpot_ms"]


def test_gains_are_told_and_are_those_of_the_formulas(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--set", "engine.speculation={method: ngram, max_draft_len: 4}"]
    asked += ["--acceptance", "0.8", "--reuse", "0.5"]
    assert run([*words, *asked]) == 0
    printed = capsys.readouterr().out
    assert "4 drafts, each accepted with 80%, make 3.36 tokens a step" in printed
    assert "KV reuse: with 50% of a prompt" in printed
    assert run([*words, *asked, "--json"]) == 0
    speed = told(capsys)["speed"]
    # 1 + 0.8 + 0.8^2 + 0.8^3 + 0.8^4
    assert speed["speculation"]["tokens_per_step"] == pytest.approx(3.3616)
    gains = speed["speculation"]["gains"]
    assert len(gains) == len(speed["loads"])
    # A lone request checks its drafts while the weights are read; many have more to compute.
    assert gains[0] == pytest.approx(3.3616)
    assert gains[0] > gains[-1] > 1
    assert speed["reuse"]["hit_rate"] == 0.5
    assert 1 < speed["reuse"]["ttft_gain"] < 2
    assert run([*words, "--json"]) == 0
    plain = told(capsys)["speed"]
    assert plain["speculation"] is None
    assert plain["reuse"] is None


def test_what_a_step_moves_and_computes_is_told(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--prompt-tokens", "1000", "--output-tokens", "200"]) == 0
    printed = capsys.readouterr().out
    for word in ("Prefill of 1000 tokens", "memory-bound", "compute-bound", "0.90 of 3350 GB/s"):
        assert word in printed
    asked = ["--prompt-tokens", "1000", "--output-tokens", "200", "--json"]
    assert run([*words, *asked]) == 0
    speed = told(capsys)["speed"]
    one = speed["decode"][0]
    # FP8: a byte for each of the 6.98e9 weights of the layers, two for the head's 0.525e9; FP8
    # keys and values of 1100 tokens.
    assert one["weight_bytes"] == pytest.approx(6.98e9 + 2 * 0.525e9, rel=0.01)
    assert one["kv_bytes"] == 1100 * 2 * 32 * 8 * 128
    assert one["operations"] == pytest.approx(2 * 7.505e9 + 4 * 32 * 4096 * 1100, rel=0.01)
    assert one["bound"] == "memory"
    assert one["memory_ms"] == pytest.approx(
        (one["weight_bytes"] + one["kv_bytes"]) / (0.9 * 3350e9) * 1000
    )
    assert speed["prefill"]["bound"] == "compute"
    assert speed["efficiency"]["compute"] == 0.7


def test_a_plan_without_times_says_why(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d.yaml").write_text(FILE.replace("serving: {gpu: H100}\n", ""))
    assert run(words) == 0
    assert "No times are estimated: no GPU is named" in capsys.readouterr().out


def test_an_eagle_head_costs_time_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def gain(speculation: str) -> float:
        asked = ["--set", f"engine.speculation={speculation}", "--acceptance", "0.8", "--json"]
        assert run([*words, *asked]) == 0
        return float(told(capsys)["speed"]["speculation"]["gains"][0])

    free = gain("{method: ngram, max_draft_len: 4}")
    eagle = gain("{method: eagle3, source: hf://a/b, max_draft_len: 4}")
    assert 0.5 * free < eagle < 0.95 * free


class _Page(HTMLParser):
    """Tags that were opened and not closed, bars by their row, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.widths: list[list[float]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("class") == "bar":
            self.widths.append([])
        if "width:" in (given.get("style") or ""):
            self.widths[-1].append(float((given["style"] or "")[6:-1]))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(path: Path) -> _Page:
    text = path.read_text()
    assert "http" not in text.replace("http-equiv", ""), "the page needs nothing else"
    page = _Page(text)
    assert page.open == []
    assert all(width >= 0 for row in page.widths for width in row)
    assert all(sum(row) <= 100.1 for row in page.widths)
    return page


def test_a_plan_as_a_page(words: list[str], tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    assert run([*words, "--html", str(page), "--reuse", "0.5"]) == 0
    made = page_of(page)
    for word in ("Memory of the fullest GPU", "KV cache", "H100", "GB200", "requests at once",
                 "milliseconds between tokens", "first token comes"):  # fmt: skip
        assert word in made.text
    # FP8: not on Ampere.
    assert "A100" not in made.text
    # Weights, tables, logits and so on, and the cache; the longest bar is the largest memory's.
    assert all(len(row) >= 5 for row in made.widths)
    assert max(sum(row) for row in made.widths) > 80


def test_a_search_as_a_page(words: list[str], tmp_path: Path) -> None:
    page = tmp_path / "search.html"
    assert run([*words, *SEARCH, "--html", str(page)]) == 0
    made = page_of(page)
    for word in ("Cost an hour", "managed", "Cost of a million tokens", "engineers",
                 "within TTFT 500 ms and TPOT 30 ms", "Throughput and time between",
                 "the curves are those of the 8 cheapest"):  # fmt: skip
        assert word in made.text


def test_a_page_without_an_answer_says_so(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "none.html"
    assert run([*words, "--rate", "1", "--slo-tpot-ms", "0.01", "--html", str(page)]) == 2
    assert "No deployment keeps these targets" in page_of(page).text
    capsys.readouterr()
    assert run([*words, "--html", str(tmp_path / "no" / "page.html")]) == 3
    assert "page.html" in capsys.readouterr().err
    assert run([*words, "--html", str(page), "--calibrate", str(page)]) == 2
    assert "--calibrate" in capsys.readouterr().err


def test_the_cheapest_deployment_is_found(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, *SEARCH]) == 0
    printed = capsys.readouterr().out
    for word in ("Cheapest deployment", "within TTFT 500 ms and TPOT 30.0 ms", "L40S", "█"):
        assert word in printed
    assert run([*words, *SEARCH, "--gpu", "h100", "--gpu", "L4", "--json"]) == 0
    found = told(capsys)
    assert {option["gpu"] for option in found["options"]} == {"H100", "L4"}
    costs = [option["usd_per_hour"] for option in found["options"]]
    assert costs == sorted(costs)
    assert all(option["replica_at_peak"]["tpot_ms"] <= 30 for option in found["options"])


def test_the_file_s_formats_can_be_kept(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, *SEARCH, "--keep-formats", "--json"]) == 0
    options = told(capsys)["options"]
    assert {(o["weights"], o["kv_cache"]) for o in options} == {("fp8", "fp8")}
    assert "A100-80" not in {o["gpu"] for o in options}


def test_own_prices_decide(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("gpus: {B200: {usd_per_hour: 0.01}, L4: {usd_per_hour: 9}}\n")
    assert run([*words, *SEARCH, "--prices", str(prices), "--json"]) == 0
    assert [o["gpu"] for o in told(capsys)["options"]] == ["B200", "L4"]
    assert run([*words, *SEARCH, "--prices", str(prices), "--gpu", "H100"]) == 2
    assert "no price for H100" in capsys.readouterr().err


def test_what_no_gpu_can_keep_is_exit_code_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--rate", "1", "--slo-tpot-ms", "0.01"]) == 2
    assert "No deployment" in capsys.readouterr().out


def test_several_gpus_are_for_a_search(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--gpu", "L4", "--gpu", "H100"]) == 2
    assert "--rate" in capsys.readouterr().err


def measured(tmp_path: Path, users: tuple[int, ...], *, slower: float) -> BenchReport:
    """A report of a deployment that reaches this part of the bandwidth that is expected."""
    deployment = load(tmp_path / "d.yaml").resolved()
    arch = architecture_of(json.loads((tmp_path / "8b.json").read_text()), {})
    replica = replica_of(make_plan(deployment, arch), arch, {})
    assert replica is not None
    factors = replace(replica.factors, bandwidth=replica.factors.bandwidth / slower)
    replica = replace(replica, factors=factors)
    return report_of(
        [(ClosedLoop(concurrency=n), with_running(replica, Traffic(500, 100), n)) for n in users]
    )


def test_a_calibration_is_kept_and_used(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    made = measured(tmp_path, (2, 4, 16), slower=2)
    file.write_text(made.model_dump_json())
    assert run([*words, "--json"]) == 0
    before = told(capsys)["speed"]["loads"]
    assert run([*words, "--calibrate", str(file)]) == 0
    printed = capsys.readouterr().out
    for word in ("measured ms", "error %", "bandwidth", "calibration.json"):
        assert word in printed
    assert run([*words, "--json"]) == 0
    speed = told(capsys)["speed"]
    assert "a run" in speed["factors"]
    assert speed["loads"][1]["tpot_ms"] > 1.5 * before[1]["tpot_ms"]
    assert list(read_known(tmp_path / "store")) == ["H100 pytorch"]
    # Another GPU keeps the general factors.
    assert run([*words, "--gpu", "H200", "--json"]) == 0
    assert "540 published runs" in told(capsys)["speed"]["factors"]
    assert run([*words, "--calibrate", str(file), "--json"]) == 0
    assert told(capsys)["worst_error"] < 0.05


def test_a_report_without_token_times_calibrates_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    file.write_text(report_of([]).model_dump_json())
    assert run([*words, "--calibrate", str(file)]) == 2
    assert "no load with a time per output token" in capsys.readouterr().err
    assert run([*words, "--calibrate", str(tmp_path / "none.json")]) == 2


def test_a_report_of_another_deployment_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    made = measured(tmp_path, (2, 4), slower=1)
    other = made.model_copy(update={"target": TargetFacts(name="other", protocol="grpc")})
    file.write_text(other.model_dump_json())
    assert run([*words, "--calibrate", str(file)]) == 2
    said = capsys.readouterr().err
    assert "'other'" in said
    assert "'chat'" in said
    assert not (tmp_path / "store" / "calibration.json").exists()


def test_what_weakens_a_calibration_is_said(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"

    def notes(report: BenchReport) -> list[str]:
        file.write_text(report.model_dump_json())
        assert run([*words, "--calibrate", str(file), "--json"]) == 0
        return list(told(capsys)["notes"])

    assert notes(measured(tmp_path, (2, 4, 16), slower=1)) == []
    (single,) = notes(measured(tmp_path, (8,), slower=1))
    assert "one load" in single
    faster = measured(tmp_path, (1, 2, 4), slower=0.5).model_copy(update={"partial": True})
    interrupted, over = notes(faster)
    assert "interrupted" in interrupted
    assert "more bandwidth was used" in over


def test_replicas_share_what_was_measured(tmp_path: Path, words: list[str]) -> None:
    assert words
    made = measured(tmp_path, (8, 32), slower=1)
    alone, shared = observations(made), observations(made, replicas=2)
    assert [one.running for one in shared] == [one.running / 2 for one in alone]
    assert [one.tpot_s for one in shared] == [one.tpot_s for one in alone]


def test_a_damaged_calibration_is_named(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").mkdir()
    kept = tmp_path / "store" / "calibration.json"
    for broken in ("{", "[]", '{"version": 9, "known": {}}', '{"version": 1, "known": {"a": {}}}'):
        kept.write_text(broken)
        assert run(words) == 2
        assert "calibration.json" in capsys.readouterr().err


def test_running_requests_follow_from_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(FILE)
    write_config(tmp_path)
    seen = observations(measured(tmp_path, (1, 8, 32), slower=1))
    assert [each.running for each in seen] == pytest.approx([1, 8, 32], rel=0.02)
    assert [each.ttft_s is not None for each in seen] == [True, False, False]
    made = Made(running=3.0, rate=3.0, ttft_s=0.1, tpot_s=0.01, output_tokens_per_s=300.0)
    in_the_open = report_of([(OpenLoop(type="open", rate=3.0), made)])
    assert observations(in_the_open)[0].running == pytest.approx(3 * 100 * 0.01)
