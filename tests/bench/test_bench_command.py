"""``toolkit bench`` as a user meets it: output, files, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployed_state import deployed
from grpc_double import error, response, serving

from toolkit.bench.files import read_report
from toolkit.cli.app import run

SHORT = ("--requests", "8", "--with", "stop.warmup_requests=0", "--quiet")


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers three words; prompts that begin ``slow`` take their time."""

    def script(request: Any, context: Any) -> Iterator[Any]:
        for _ in range(3):
            time.sleep(0.01)
            yield response("word ")
        yield response("", final=True, num_output_tokens=3)

    with serving(script) as (number, _):
        yield number


def bench(port: int, *arguments: str) -> int:
    return run(["bench", "--url", f"localhost:{port}", "--model", "m", *SHORT, *arguments])


def test_a_run_prints_a_table_and_writes_three_files(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(port, "--concurrency", "1,2", "--output", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "1 user" in printed
    assert "2 users" in printed
    assert str(tmp_path / "report.html") in printed
    report = read_report(tmp_path)
    assert [point.repeats[0].completed for point in report.points] == [8, 8]
    assert report.tokens_counted_by == "server"
    assert not report.partial


def test_json_is_the_report_and_nothing_else(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(port, "--json", "--rate", "200", "--arrivals", "constant") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema_version"] == 1
    assert report["points"][0]["load"] == {
        "type": "open",
        "rate": 200.0,
        "arrivals": "constant",
        "burst_size": 8,
    }


def test_each_run_has_prompts_of_its_own_unless_a_seed_is_given(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = []
    for arguments in ((), (), ("--seed", "7")):
        assert bench(port, "--json", "--concurrency", "1", *arguments) == 0
        seeds.append(json.loads(capsys.readouterr().out)["seed"])
    assert seeds[0] != seeds[1]
    assert seeds[2] == 7


def test_an_unreachable_server_is_exit_code_6(
    unused_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(unused_port) == 6
    assert "not reachable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("--duration", "3x"), "--duration"),
        (("--concurrency", "0"), "--concurrency 0"),
        (("--concurrency", "1", "--rate", "1"), "closed loop"),
        (("--scenario", "nonsense"), "nonsense"),
        (("--protocol", "carrier-pigeon"), "--protocol"),
        (("--with", "workload.promt_tokens=3"), "promt_tokens"),
        (("--tokenizer", "absent.json"), "absent.json"),
    ],
)
def test_wrong_flags_are_exit_code_2_and_named(
    port: int, arguments: tuple[str, ...], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(port, *arguments) == 2
    assert place in capsys.readouterr().err


def test_neither_file_nor_url_is_a_usage_error() -> None:
    assert run(["bench"]) == 2
    assert run(["bench", "--url", "localhost:1"]) == 2


def test_errors_gate_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    def script(request: Any, context: Any) -> Iterator[Any]:
        if int(request.id) % 4 == 0:
            yield error("broke on purpose")
        else:
            yield response("x", final=True, num_output_tokens=1)

    with serving(script) as (port, _):
        assert bench(port, "--concurrency", "1") == 0
        assert "2 x server: broke on purpose" in capsys.readouterr().err
        assert bench(port, "--concurrency", "1", "--fail-on-errors") == 5
        assert "2 of 8 requests failed" in capsys.readouterr().err


def test_a_run_without_a_single_success_is_a_server_error(tmp_path: Path) -> None:
    def script(request: Any, context: Any) -> Iterator[Any]:
        yield error("no")

    with serving(script) as (port, _):
        assert bench(port, "--output", str(tmp_path)) == 6
    assert read_report(tmp_path).points[0].errors[0].kind == "server"


def test_the_slo_gate(port: int) -> None:
    gate = ("--concurrency", "1", "--fail-below-slo", "0.9")
    assert bench(port, *gate, "--slo-ttft-ms", "60000") == 0
    assert bench(port, *gate, "--slo-ttft-ms", "0.001") == 5
    assert bench(port, *gate) == 2


@pytest.fixture
def chat(port: int, tmp_path: Path) -> Path:
    """A deployment file whose server runs, as its workspace says."""
    file = tmp_path / "chat.yaml"
    file.write_text(
        "name: chat\nmodel: {source: ./m}\n"
        "engine: {limits: {max_input_len: 300, max_seq_len: 400}}\n"
        "scheduling: {classes: {quick: {ttft_ms: 60000}, lazy: {ttft_ms: 0.001}}}\n"
    )
    deployed(tmp_path / ".toolkit", "chat", grpc=port)
    return file


def test_a_deployment_file_gives_name_targets_and_place(
    chat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--concurrency", "1", "--fail-below-slo", "0.9")
    assert run(["bench", str(chat), *SHORT, *arguments]) == 0
    (folder,) = (chat.parent / ".toolkit" / "bench").iterdir()
    printed = capsys.readouterr().out
    assert str(folder) in printed
    assert "in SLO: within TTFT 60000 ms" in printed
    report = read_report(folder)
    assert report.target.name == "chat"
    assert report.objectives[""].ttft_ms == 60000
    lazy = ("--with", "workload.request_class=lazy")
    assert run(["bench", str(chat), *SHORT, *arguments, *lazy]) == 5
    assert "in SLO: within TTFT 0.001 ms" in capsys.readouterr().out


def test_what_was_not_deployed_here_is_not_measured(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "chat.yaml"
    file.write_text(f"name: chat\nmodel: {{source: ./m}}\nserving: {{ports: {{grpc: {port}}}}}\n")
    assert run(["bench", str(file), *SHORT]) == 6
    assert f"--url grpc://127.0.0.1:{port}" in capsys.readouterr().err
    assert run(["bench", str(file), *SHORT, "--url", f"localhost:{port}"]) == 0


def test_another_build_of_the_name_is_noted(chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def noted(expected: str | None) -> bool:
        monkeypatch.setattr("toolkit.pipeline.expected.expected_digest", lambda *_: expected)
        output = chat.parent / f"out-{expected}"
        arguments = ("--concurrency", "1", "--output", str(output))
        assert run(["bench", str(chat), *SHORT, *arguments]) == 0
        return any("another file" in note for note in read_report(output).notes)

    assert not noted("served")
    assert not noted(None)
    assert noted("other")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--prompt-tokens", "301"), "max_input_len (300)"),
        (("--with", "concurency=3"), "--with concurency=3"),
        (("--concurrency", "zero"), "--concurrency"),
        (("--output", "chat.yaml"), "there is a file"),
        (("--scenario", "none-such"), "no scenario"),
    ],
)
def test_arguments_are_checked_before_the_server_is_asked(
    chat: Path,
    arguments: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(chat.parent)
    deployed(chat.parent / ".toolkit", "chat", grpc=1)  # nobody listens there
    assert run(["bench", str(chat), *SHORT, *arguments]) == 2
    assert told in capsys.readouterr().err


def test_ctrl_c_writes_what_was_measured(port: int, tmp_path: Path) -> None:
    code = "import sys; from toolkit.cli import main; sys.exit(main())"
    arguments = ["--url", f"localhost:{port}", "--model", "m", "--concurrency", "2,4"]
    limits = ["--duration", "60s", "--warmup", "0s", "--repeats", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, "bench", *arguments, *limits, "--output", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    # The first line tells that the first load has begun.
    assert "2 users" in process.stderr.readline()
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "partial" in out
    report = read_report(tmp_path)
    assert report.partial
    (point,) = report.points
    assert point.label == "2 users"
    assert point.repeats[0].partial
    assert point.repeats[0].completed > 0
    assert point.repeats[0].window_s < 30
    assert point.totals["error_share"].value == 0
