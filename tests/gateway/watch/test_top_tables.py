"""A window as tables: 80 columns, nothing cut, nothing hidden."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from toolkit.cli.top_screen import _Frame
from toolkit.cli.top_tables import number, render, seconds, share
from toolkit.gateway.watch.view import ClassView, ReplicaView, SourceView, View

BUSY = ClassView(
    *("chat", "llama-3.1-70b-instruct", "interactive"),
    waiting=1234,
    running=256,
    requests_per_s=123.4,
    prompt_tokens_per_s=123_456,
    cached_tokens_per_s=98_765,
    completion_tokens_per_s=43_210,
    ttft_p50_s=0.1234,
    ttft_p95_s=12.34,
    itl_p50_s=0.00987,
    itl_p95_s=0.0456,
    queue_p95_s=11.1,
    in_time=0.9999,
    acceptance_rate=0.654,
    refused_per_s={"too_late": 12.0, "queue_full": 0.0, "rate_limit": 3.5},
)
LOADED = ReplicaView(
    *("chat", "llama-3.1-70b-instruct", "10.20.30.40:8001", True),
    running=128,
    slots=256,
    outstanding_tokens=654_321,
    kv_use=0.987,
    kv_reserved=0.999,
    kv_hit_rate=0.412,
    acceptance_rate=0.654,
    preemptions=12,
    preemptions_total=1234,
    restarts=12,
)
WELL = SourceView(
    "chat", "http://gw:9000/metrics", True, status="ready", cost_per_thousand_tokens=0.01234
)
VIEW = View(1.0, (WELL,), (BUSY, replace(BUSY, request_class="batch")), (LOADED,))


def drawn(view: View, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(render(view))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_everything_is_there_in_80_columns() -> None:
    text = drawn(VIEW)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for figure in (
        *("1.23k", "256", "123", "123k", "98.8k", "43.2k", "15.5"),
        *("123ms", "12.3s", "9.87ms", "45.6ms", "11.1s", "99.9%", "65%"),
        *("128/256", "654k", "99%", "41%", "+12 1.23k", "12"),
        "refused, llama-3.1-70b-instruct interactive: rate_limit 3.5, too_late 12 a second",
        "0.01234 for a thousand tokens",
    ):
        assert figure in " ".join(text.split()), figure
    assert "queue_full" not in text


def test_acceptance_of_the_gateway_stands_in_for_the_engines() -> None:
    said = "drafts accepted, llama-3.1-70b-instruct batch: 65%"
    assert said not in drawn(VIEW)
    assert said in drawn(replace(VIEW, replicas=(replace(LOADED, acceptance_rate=None),)))


def test_names_are_whole_where_there_is_room() -> None:
    text = drawn(VIEW, 200)
    assert "llama-3.1-70b-instruct" in text
    assert "10.20.30.40:8001" in text


def test_what_is_not_well_is_said() -> None:
    away = replace(WELL, answers=False, error="connection refused", status="restarting")
    text = drawn(View(1.0, (away, replace(WELL, restarted=True)), (), (replace(LOADED, up=False),)))
    assert "chat: restarting" in text
    assert "http://gw:9000/metrics: connection refused" in text
    assert "has restarted" in text
    assert " NO " in text
    assert "nothing runs" in drawn(View(None))
    assert "no figures" in drawn(View(None, (WELL,)))


def test_two_gateways_of_one_model_are_told_apart() -> None:
    text = drawn(replace(VIEW, classes=(BUSY, replace(BUSY, source="b:9000"))), 200)
    assert "llama-3.1-70b-instruct @chat" in text
    assert "llama-3.1-70b-instruct @b:9000" in text


def test_an_engine_alone_has_no_table_of_latencies() -> None:
    one = ClassView("t:8002", "chat", None, 2.0, 3.0, 1.0)
    text = drawn(View(1.0, (WELL,), (one,)))
    assert "(engine)" in text
    assert "TTFT" not in text


@pytest.mark.parametrize("height", [5, 10, 24])
def test_a_low_screen_says_what_it_hides(height: int) -> None:
    console = Console(file=io.StringIO(), width=80, height=height, highlight=False)
    whole = len(drawn(VIEW).splitlines())
    frame = _Frame("title", render(VIEW))
    lines = console.render_lines(frame, console.options.update_height(height), pad=False)
    texts = ["".join(segment.text for segment in line) for line in lines]
    assert len(texts) <= height
    assert texts[0] == "title"
    hidden = whole - (height - 1)
    if hidden > 0:
        assert texts[-1] == f"{hidden + 1} more lines: make the terminal higher"
    else:
        assert not any("more lines" in text for text in texts)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "-"), (0, "0"), (0.25, "0.25"), (9.996, "10"), (12.34, "12.3"), (999.4, "999")),
        *((999.6, "1k"), (12_345, "12.3k"), (999_999, "1M"), (2.5e9, "2.5G")),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_times_and_shares() -> None:
    times = [seconds(value) for value in (None, 0.00074, 0.0125, 0.9996, 1.25, 80.0)]
    assert times == ["-", "740us", "12.5ms", "1s", "1.25s", "80s"]
    shares = [share(value) for value in (None, 0.0, 0.001, 0.5, 0.9999, 1.0)]
    assert shares == ["-", "0%", "<1%", "50%", "99.9%", "100%"]
