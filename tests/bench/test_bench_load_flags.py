"""``toolkit bench``: traces, the search for a rate and load processes, as flags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc_double import response, serving
from test_bench_reports import report_of, run_of

from toolkit.bench.files import read_report
from toolkit.bench.load import ClosedLoop
from toolkit.bench.workload import TraceFile
from toolkit.cli.app import run
from toolkit.cli.bench.judge import JudgeFlags, judge
from toolkit.cli.bench.measure import within_limits
from toolkit.cli.bench.place import Place
from toolkit.errors import EnvironmentError_

TRACE = "".join(
    json.dumps({"timestamp": n * 10, "input_length": 20 + n, "output_length": 2, "hash_ids": [1]})
    + "\n"
    for n in range(8)
)


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers at once."""

    def script(request: Any, context: Any) -> Iterator[Any]:
        yield response("word ")
        yield response("", final=True, num_output_tokens=2)

    with serving(script) as (number, _):
        yield number


def bench(port: int, *arguments: str) -> int:
    return run(["bench", "--url", f"localhost:{port}", "--model", "m", "--quiet", *arguments])


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "a trace: of #1 \N{GRINNING FACE}.jsonl"
    file.write_text(TRACE)
    return file


def test_a_trace_is_replayed_as_fast_as_told(
    port: int, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = ("--duration", "60s", "--warmup", "0")
    assert bench(port, "--json", "--trace", str(trace), "--speedup", "1,4", *stop) == 0
    report = json.loads(capsys.readouterr().out)
    assert [point["label"] for point in report["points"]] == ["trace", "trace x4"]
    spans = report["points"][1]["repeats"][0]["spans"]
    assert [round(span["intended"], 4) for span in spans] == [n * 0.0025 for n in range(8)]
    assert report["workload"]["type"] == "trace"


def test_a_rate_stretches_the_trace_and_other_arrivals_replace_its_times(
    port: int, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = ("--requests", "8", "--with", "stop.warmup_requests=0", "--json")
    loads = []
    for more in (
        ("--rate", "400"),
        ("--rate", "400", "--arrivals", "poisson"),
        ("--concurrency", "2"),
    ):
        assert bench(port, "--trace", str(trace), *stop, *more) == 0
        (point,) = json.loads(capsys.readouterr().out)["points"]
        loads.append(point["label"])
        assert point["repeats"][0]["completed"] == 8
    assert loads == ["400/s trace", "400/s poisson", "2 users"]


def test_several_processes_measure_one_load(
    port: int, trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = ("--requests", "8", "--with", "stop.warmup_requests=0")
    arguments = ("--trace", str(trace), "--processes", "2", "--output", str(tmp_path / "out"))
    assert bench(port, *arguments, *stop) == 0
    (repeat,) = read_report(tmp_path / "out").points[0].repeats
    assert (repeat.completed, repeat.client.processes) == (8, 2)


def test_a_search_prints_what_it_found(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that answers within a minute is fast enough for any rate that is tried."""
    limits = ("--slo-ttft-ms", "60000", "--rate-limit", "400", "--rate-start", "200")
    stop = ("--requests", "60", "--with", "stop.warmup_requests=0", "--rate-share", "0.9")
    assert bench(port, "--find-rate", *limits, *stop, "--output", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "400 sessions a second keep 90.0% of the requests within the SLO" in printed
    assert "Rates tried" in printed
    found = read_report(tmp_path).found_rate
    assert found
    assert (found.rate, found.bound) == (400.0, "limit")


def test_a_search_stretches_a_trace_unless_told_other_arrivals(
    port: int, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("--slo-ttft-ms", "60000", "--rate-limit", "200", "--rate-start", "200")
    stop = ("--requests", "8", "--with", "stop.warmup_requests=0", "--rate-share", "0.5")
    for more, label in (((), "200/s trace"), (("--arrivals", "burst"), "200/s burst")):
        arguments = ("--find-rate", "--json", "--trace", str(trace), *limits, *stop, *more)
        assert bench(port, *arguments) == 0
        report = json.loads(capsys.readouterr().out)
        assert {probe["label"] for probe in report["found_rate"]["probes"]} == {label}
        assert report["found_rate"]["rate"] == 200.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--find-rate",), "no SLO"),
        (("--find-rate", "--rate", "3"), "--rate"),
        (("--find-rate", "--concurrency", "3"), "--concurrency"),
        (("--find-rate", "--repeats", "3"), "--repeats"),
        (("--find-rate", "--fail-below-slo", "0.9"), "--fail-below-slo"),
        (("--find-rate", "--rate-share", "1.5"), "--rate-share"),
        (("--rate-limit", "3"), "--find-rate"),
        (("--trace", "absent.jsonl"), "absent.jsonl"),
        (("--trace-format", "csv"), "--trace-format"),
        (("--speedup", "2"), "speedup"),
        (("--trace", "absent.jsonl", "--rate", "2", "--speedup", "2"), "give one of them"),
        (("--with", "load={type: trace, rate: 2, speedup: 2}"), "give one of them"),
        (("--processes", "0"), "--processes"),
        (("--processes", "many"), "--processes"),
    ],
)
def test_wrong_flags_are_exit_code_2_and_named(
    port: int, arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(port, "--requests", "2", *arguments) == 2
    assert words in capsys.readouterr().err


def test_a_trace_is_held_to_what_the_deployment_takes(trace: Path) -> None:
    workload = TraceFile(type="trace", path=str(trace))
    held = within_limits(workload, Place("u", "m", None, max_input_len=24, max_seq_len=25))
    assert isinstance(held, TraceFile)
    lengths = [(one.prompt_tokens, one.output_tokens) for one in held.replay().arrivals]
    assert lengths == [(20, 2), (21, 2), (22, 2), (23, 2), *[(24, 1)] * 4]
    own = workload.model_copy(update={"max_prompt_tokens": 10, "max_total_tokens": 11})
    assert within_limits(own, Place("u", "m", None, max_input_len=24, max_seq_len=25)) == own
    assert within_limits(workload, Place("u", "m", None)) == workload
    assert held.mean_output() == 1.5


def test_a_run_that_lost_a_load_process_is_exit_code_3() -> None:
    lost = report_of((ClosedLoop(concurrency=2), [run_of(0.01)]), failure="process 2 died")
    with pytest.raises(EnvironmentError_, match="process 2 died") as caught:
        judge(lost, JudgeFlags())
    assert caught.value.exit_code == 3
