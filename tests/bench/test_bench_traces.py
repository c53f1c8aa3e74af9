"""Traces: both formats are read as they are published, mistakes have a line, text is shared."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from pathlib import Path

import pytest
from test_bench_load import Engine
from test_bench_method import tokenizer_with_beginning

from toolkit.bench.load import ClosedLoop, Load, OpenLoop, Stop, TraceLoop
from toolkit.bench.records import Request
from toolkit.bench.runner import Options, run
from toolkit.bench.scenario import load_scenario, parse_scenario
from toolkit.bench.traces import Arrival, read_trace
from toolkit.bench.workload import Independent, Material, TraceFile
from toolkit.errors import SpecError

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:17:03.9799600,48,10\r\n"
    "2023-11-16 18:17:04.0319600,31,8\r\n"
)


def mooncake(*rows: tuple[float, int, int, list[int]]) -> str:
    names = ("timestamp", "input_length", "output_length", "hash_ids")
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def trace(path: Path, text: str, **settings: object) -> TraceFile:
    path.write_text(text)
    return TraceFile.model_validate({"type": "trace", "path": str(path), **settings})


def test_a_mooncake_trace(file: Path) -> None:
    file.write_text(mooncake((27482, 1000, 52, [46, 47]), (30535.5, 600, 26, [46, 2366])))
    found = read_trace(file)
    assert found.format == "mooncake"
    assert found.arrivals == (
        Arrival(0.0, 1000, 52, (46, 47)),
        Arrival(3.0535, 600, 26, (46, 2366)),
    )
    assert not found.more


def test_an_azure_trace(file: Path) -> None:
    file.write_text(AZURE)
    found = read_trace(file)
    assert found.format == "azure"
    assert found.arrivals == (Arrival(0.0, 48, 10), Arrival(0.052, 31, 8))


@pytest.mark.parametrize(
    ("first", "second", "gap"),
    [
        ("2024-05-10 00:00:00.009930+00:00", "2024-05-10 00:00:01.009930+00:00", 1.0),
        ("2024-05-10 00:00:00", "2024-05-10T01:00:00.5Z", 3600.5),
        ("2024-05-10 00:00:00+00:00", "2024-05-10 01:30:00+01:00", 1800.0),
        ("2024-05-10 00:00:00-0130", "2024-05-10 01:30:01Z", 1.0),
    ],
)
def test_azure_times_may_have_a_zone(file: Path, first: str, second: str, gap: float) -> None:
    file.write_text(f"{AZURE.splitlines()[0]}\n{first},1,1\n{second},1,1\n")
    assert read_trace(file).arrivals[1].at == pytest.approx(gap, abs=1e-6)


def test_columns_may_stand_in_any_order_and_others_are_named(file: Path) -> None:
    file.write_text(
        "\ufeffNumImages,GeneratedTokens,TIMESTAMP,ContextTokens\n2,5,2024-10-15 00:00:00,70\n"
    )
    found = read_trace(file)
    assert found.arrivals == (Arrival(0.0, 70, 5),)
    assert found.ignored == ("NumImages",)


def test_a_packed_trace_is_unpacked(tmp_path: Path) -> None:
    packed = tmp_path / "trace.csv.gz"
    packed.write_bytes(gzip.compress(AZURE.encode()))
    assert len(read_trace(packed).arrivals) == 2
    broken = bytearray(gzip.compress(AZURE.encode() * 1000))
    broken[15:40] = b"\xff" * 25
    for content in (b"no gzip", bytes(broken), gzip.compress(AZURE.encode())[:-9]):
        packed.write_bytes(content)
        with pytest.raises(SpecError, match="cannot be read"):
            read_trace(packed)


def test_a_mark_of_utf_8_in_front_is_no_part_of_either_format(file: Path) -> None:
    for text in (AZURE, mooncake((0, 4, 1, []))):
        file.write_text(f"\ufeff{text}")
        assert read_trace(file).arrivals


def test_requests_are_put_in_order_of_time(file: Path) -> None:
    file.write_text(mooncake((900, 3, 1, []), (100, 1, 1, []), (100, 2, 1, [])))
    assert [(one.at, one.prompt_tokens) for one in read_trace(file).arrivals] == [
        (0.0, 1),
        (0.0, 2),
        (0.8, 3),
    ]


def test_a_limit_says_that_there_is_more(file: Path) -> None:
    file.write_text(mooncake(*((float(n), 4, 1, []) for n in range(5))))
    assert len(read_trace(file, limit=3).arrivals) == 3
    assert read_trace(file, limit=3).more
    assert not read_trace(file, limit=5).more


def test_requests_for_nothing_are_counted_and_left_out(file: Path) -> None:
    file.write_text(mooncake((0, 4, 1, []), (1, 0, 1, []), (2, 4, 0, [])))
    found = read_trace(file)
    assert (len(found.arrivals), found.empty) == (1, 2)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "neither"),
        ("a,b\n1,2\n", 1, "neither"),
        (mooncake((0, 4, 1, [])) + "{", 2, "JSON"),
        (mooncake((0, 4, 1, [])) + "\n\n[]\n", 4, "object"),
        ('{"input_length": 4, "output_length": 1}', 1, "timestamp"),
        ('{"timestamp": true, "input_length": 4, "output_length": 1}', 1, "timestamp"),
        ('{"timestamp": -1, "input_length": 4, "output_length": 1}', 1, "timestamp"),
        ('{"timestamp": 0, "output_length": 1}', 1, "input_length"),
        (mooncake((0, -4, 1, [])), 1, "input_length"),
        (mooncake((0, 4, 1, [])).replace("1,", "1.5,"), 1, "output_length"),
        (mooncake((0, 4, 1, [])).replace("[]", '["a"]'), 1, "hash_ids"),
        (mooncake((0, 1025, 1, [1, 2, 3, 4])), 1, "4 hash_ids"),
        (AZURE + "2023-11-16 18:17:04,31\n", 4, "2 columns"),
        (AZURE + "2023-11-16 18:17:04,many,1\n", 4, "ContextTokens"),
        (AZURE + "2023-11-16 18:17:04,1,-1\n", 4, "GeneratedTokens"),
        (AZURE + f"2023-11-16 18:17:04,{'9' * 5000},1\n", 4, "ContextTokens"),
        (AZURE + f"2023-11-16 18:17:04,{'9' * 140_000},1\n", 4, "not CSV"),
        ("a" * 140_000, 1, "not CSV"),
        ('{"timestamp":' + "[" * 100_000, 1, "not JSON"),
        (AZURE + "2023-13-16 18:17:04,1,1\n", 4, "not a time"),
        (AZURE + "yesterday,1,1\n", 4, "not a time"),
    ],
)
def test_a_wrong_line_is_named(file: Path, text: str, line: int, words: str) -> None:
    file.write_text(text)
    with pytest.raises(SpecError, match=words) as caught:
        read_trace(file)
    assert caught.value.where == f"{file}:{line}"


def test_a_block_size_that_does_not_fit_is_told_with_one_that_does(file: Path) -> None:
    file.write_text(mooncake((0, 100, 1, list(range(7)))))
    assert len(read_trace(file, block_tokens=16).arrivals) == 1
    with pytest.raises(SpecError) as caught:
        read_trace(file, block_tokens=512)
    assert "about 16" in str(caught.value.hint)


def test_the_format_can_be_given(file: Path) -> None:
    file.write_text("time,ContextTokens,GeneratedTokens\n")
    with pytest.raises(SpecError, match="TIMESTAMP is missing"):
        read_trace(file, "azure")
    with pytest.raises(SpecError, match="not JSON"):
        read_trace(file, "mooncake")
    with pytest.raises(SpecError, match="cannot be read"):
        read_trace(file.with_name("absent"))


def prompts(workload: TraceFile, **material: object) -> list[str]:
    made = Material(**material)  # type: ignore[arg-type]
    return [session.prompt(0, []) for session in workload.sessions(made)]


def common(one: str, other: str) -> int:
    pairs = zip(one.split(), other.split(), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def test_equal_ids_are_equal_tokens_in_front(file: Path, tmp_path: Path) -> None:
    rows = [(0, 40, 2, [1, 2, 3]), (1, 44, 2, [1, 2, 4]), (2, 33, 2, [9, 2, 3]), (3, 30, 2, [1])]
    rows += [(4, 40, 2, [1, 2, 3])]
    workload = trace(file, mooncake(*rows), block_tokens=16)
    vocabulary = tokenizer_with_beginning(tmp_path)
    first, second, third, fourth, again = prompts(workload, vocabulary=vocabulary, salt="s")
    for prompt, row in zip((first, second, third, fourth, again), rows, strict=True):
        assert vocabulary.count(prompt) == row[1]
    assert 32 <= common(first, second) < 36
    assert 16 <= common(first, fourth) < 20
    assert common(first, third) == 0
    assert again == first
    # An id names a text, wherever it stands.
    assert first.split()[16:32] == third.split()[16:32]


def test_runs_share_no_text(file: Path) -> None:
    workload = trace(file, mooncake((0, 64, 2, [1])))
    (one,), (other,) = prompts(workload, salt="1"), prompts(workload, salt="2")
    assert common(one, other) < 3
    assert prompts(workload, salt="1") == [one]


def test_an_azure_request_shares_nothing_and_has_its_length(file: Path) -> None:
    one, other = prompts(trace(file, AZURE))
    assert (len(one.split()), len(other.split())) == (48, 31)
    assert common(one, other) < 3


def test_what_is_too_long_is_shortened_and_counted(file: Path) -> None:
    rows = [(0, 40, 9, [1, 2, 3]), (1, 20, 3, [1, 2]), (2, 10, 9, [5])]
    workload = trace(
        file, mooncake(*rows), block_tokens=16, max_prompt_tokens=24, max_output_tokens=4
    )
    replay = workload.replay()
    assert [(one.prompt_tokens, one.output_tokens) for one in replay.arrivals] == [
        (24, 4),
        (20, 3),
        (10, 4),
    ]
    assert [len(prompt.split()) for prompt in prompts(workload)] == [24, 20, 10]
    assert list(replay.notes()) == [
        "trace: 2 of 3 requests were shortened to the longest allowed",
    ]


def test_what_is_too_long_is_left_out_if_told(file: Path) -> None:
    rows = mooncake((0, 40, 9, []), (1, 20, 3, []), (2, 10, 9, []))
    workload = trace(file, rows, max_output_tokens=4, longer="skip")
    assert [one.at for one in workload.replay().arrivals] == [0.001]
    assert list(workload.replay().notes()) == [
        "trace: 2 of 3 requests were left out, being too long"
    ]
    with pytest.raises(SpecError, match="all 3 requests"):
        workload.model_copy(update={"max_output_tokens": 2}).replay()


def test_a_trace_that_has_changed_is_read_again(file: Path) -> None:
    import os

    workload = trace(file, mooncake((0, 4, 1, [])))
    assert len(workload.replay().arrivals) == 1
    file.write_text(mooncake((0, 4, 1, []), (1, 4, 1, [])))
    os.utime(file, ns=(1, 1))
    assert len(workload.replay().arrivals) == 2


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (TraceLoop(type="trace"), [0.0, 0.5, 0.6, 2.0]),
        (TraceLoop(type="trace", speedup=4), [0.0, 0.125, 0.15, 0.5]),
        (TraceLoop(type="trace", rate=3), [0.0, 0.25, 0.3, 1.0]),
    ],
)
def test_times_are_stretched_by_one_factor(load: TraceLoop, expected: list[float]) -> None:
    assert list(load.offsets([5.0, 5.5, 5.6, 7.0])) == pytest.approx(expected)


def test_a_trace_in_one_moment_comes_in_one_moment() -> None:
    assert list(TraceLoop(type="trace", rate=3).offsets([2.0, 2.0])) == [0.0, 0.0]
    assert list(TraceLoop(type="trace").offsets([])) == []


def test_requests_start_when_the_trace_says(file: Path) -> None:
    rows = [(0, 4, 1, []), (120, 5, 2, []), (130, 6, 3, []), (300, 7, 4, [])]
    engine = Engine(seconds=0.001, tokens=1)
    load = TraceLoop(type="trace", speedup=2)
    options = Options(stop=Stop(duration=60, warmup=0))
    report = run(engine, trace(file, mooncake(*rows)), load, options)
    start = engine.asked[0].intended
    gaps = [request.intended - start for request in engine.asked]
    assert gaps == pytest.approx([0.0, 0.06, 0.065, 0.15])
    assert [len(request.prompt.split()) for request in engine.asked] == [4, 5, 6, 7]
    assert [request.max_tokens for request in engine.asked] == [1, 2, 3, 4]
    assert engine.asked[3].min_tokens == 4
    (point,) = report.points
    assert point.label == "trace x2"
    # The window ends with the trace: waiting for more would dilute the throughput.
    assert point.repeats[0].window_s < 30


def test_warm_up_takes_the_first_requests_and_the_rest_keep_their_times(file: Path) -> None:
    rows = mooncake(*((n * 50.0, 10 + n, 1, []) for n in range(8)))
    engine = Engine(seconds=0.001, tokens=1)
    options = Options(stop=Stop(requests=5, warmup_requests=2))
    report = run(engine, trace(file, rows), TraceLoop(type="trace"), options)
    assert [len(request.prompt.split()) for request in engine.asked] == list(range(10, 17))
    counted = engine.asked[2:]
    gaps = [b.intended - a.intended for a, b in itertools.pairwise(counted)]
    assert gaps == [pytest.approx(0.05)] * 4
    assert "trace: 5 of the trace's 8 requests were sent" in report.notes


def test_a_client_that_is_late_counts_the_delay(file: Path) -> None:
    """No coordinated omission: the trace goes on while the client stands still."""
    rows = mooncake(*((n * 10.0, 4, 1, []) for n in range(30)))
    engine = Engine(seconds=0.001, tokens=1)

    def stall(request: Request) -> None:
        if request.number == 3:
            time.sleep(0.3)

    engine.before = stall
    report = run(
        engine,
        trace(file, rows),
        TraceLoop(type="trace"),
        Options(stop=Stop(requests=30, warmup_requests=0)),
    )
    spans = report.points[0].repeats[0].spans
    assert len(spans) == 30
    for late in range(20):
        assert spans[3 + late].ended - spans[3 + late].intended >= 0.3 - late * 0.01 - 0.002
    assert report.points[0].repeats[0].client.send_lag_p99_ms > 100


@pytest.mark.parametrize(
    "load", [ClosedLoop(concurrency=2), OpenLoop(type="open", rate=500, arrivals="constant")]
)
def test_a_trace_s_prompts_go_with_any_load(file: Path, load: Load) -> None:
    rows = mooncake(*((n * 1e6, 4 + n, 1, []) for n in range(6)))
    engine = Engine(seconds=0.001)
    run(engine, trace(file, rows), load, Options(stop=Stop(requests=6, warmup_requests=0)))
    assert sorted(len(request.prompt.split()) for request in engine.asked) == [4, 5, 6, 7, 8, 9]


def test_trace_times_without_a_trace_are_refused() -> None:
    with pytest.raises(SpecError, match="needs a workload of type trace"):
        run(Engine(), Independent(), TraceLoop(type="trace"))
    with pytest.raises(SpecError, match="needs a workload of type trace") as caught:
        parse_scenario("load: {type: trace}", "s.yaml")
    assert str(caught.value.where).startswith("s.yaml:1")


def test_a_scenario_replays_a_trace_that_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(mooncake((0, 4, 1, [])))
    scenario = tmp_path / "own.yaml"
    scenario.write_text("workload: {type: trace, path: t.jsonl}")
    found = load_scenario(str(scenario))
    assert found.load.loads == (TraceLoop(type="trace"),)
    assert isinstance(found.workload, TraceFile)
    assert len(found.workload.replay().arrivals) == 1
    scenario.write_text(
        "workload: {type: trace, path: t.jsonl}\nload: {type: trace, speedup: [1, 4]}"
    )
    assert [load.label for load in load_scenario(str(scenario)).load.loads] == ["trace", "trace x4"]
    scenario.write_text("workload: {type: trace, path: t.jsonl}\nload: {type: trace, rate: 2}")
    assert [load.label for load in load_scenario(str(scenario)).load.loads] == ["2/s trace"]
