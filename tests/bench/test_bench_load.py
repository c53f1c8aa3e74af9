"""Loads on a target inside this process: who runs when, and what latency counts."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from toolkit.bench.load import ClosedLoop, OpenLoop, Stop
from toolkit.bench.metrics import Objective
from toolkit.bench.records import Request, RequestRecord, Usage, clock
from toolkit.bench.report import BenchReport
from toolkit.bench.runner import Options, run
from toolkit.bench.saturation import Watch
from toolkit.bench.target import TargetInfo
from toolkit.bench.workload import Conversation, Independent
from toolkit.errors import ServerError

PROMPTS = Independent(prompt_tokens={"distribution": "fixed", "tokens": 4})  # type: ignore[arg-type]


class Engine:
    """Answers each request after ``seconds``, ``tokens`` responses in all; counts what it sees."""

    def __init__(self, seconds: float = 0.002, tokens: int = 4) -> None:
        self.seconds, self.tokens = seconds, tokens
        self.asked: list[Request] = []
        self.running = self.most = 0
        self.fails: Callable[[Request], bool] = lambda request: False
        self.before: Callable[[Request], None] = lambda request: None
        self.opened = self.closed = 0

    async def open(self) -> TargetInfo:
        self.opened += 1
        return TargetInfo("engine", "direct")

    async def generate(self, request: Request) -> RequestRecord:
        record = RequestRecord(request, sent=clock())
        self.asked.append(request)
        self.before(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for number in range(self.tokens):
                await asyncio.sleep(self.seconds / self.tokens)
                record.responses.append(clock())
                record.text += f" answer{request.number}.{number}"
        finally:
            self.running -= 1
        if self.fails(request):
            record.fail("server", "on purpose")
        else:
            record.complete(record.responses[-1], Usage(output_tokens=self.tokens))
        return record

    async def close(self) -> None:
        self.closed += 1


def count(requests: int, warmup: int = 0) -> Stop:
    return Stop(requests=requests, warmup_requests=warmup)


def measured(report: BenchReport) -> int:
    return sum(repeat.requests for point in report.points for repeat in point.repeats)


def test_a_closed_loop_keeps_its_users_busy_and_no_more() -> None:
    engine = Engine()
    report = run(engine, PROMPTS, ClosedLoop(concurrency=6), Options(stop=count(60)))
    assert engine.most == 6
    assert len(engine.asked) == measured(report) == 60
    assert report.points[0].repeats[0].completed == 60
    assert (engine.opened, engine.closed) == (1, 1)


def test_warm_up_requests_run_first_and_do_not_count() -> None:
    engine = Engine()
    report = run(engine, PROMPTS, ClosedLoop(concurrency=4), Options(stop=count(20, warmup=8)))
    assert len(engine.asked) == 28
    assert measured(report) == 20
    assert len({request.prompt for request in engine.asked}) == 28
    assert len({request.number for request in engine.asked}) == 28


def test_a_duration_counts_what_was_meant_for_its_window() -> None:
    engine = Engine(seconds=0.02)
    stop = Stop(duration=0.4, warmup=0.2)
    report = run(engine, PROMPTS, ClosedLoop(concurrency=3), Options(stop=stop))
    (repeat,) = report.points[0].repeats
    assert repeat.window_s == pytest.approx(0.4)
    counted = [span for span in repeat.spans if span.counted]
    assert len(counted) == repeat.requests < len(engine.asked) == len(repeat.spans)
    assert all(0 <= span.intended < 0.4 for span in counted)
    assert any(span.intended < 0 for span in repeat.spans)


def test_a_window_shorter_than_a_request_stays_open_for_one_of_each_user() -> None:
    engine = Engine(seconds=0.4)
    stop = Stop(duration=0.05, warmup=0.05)
    report = run(engine, PROMPTS, ClosedLoop(concurrency=5), Options(stop=stop))
    (repeat,) = report.points[0].repeats
    assert repeat.requests == 5
    assert len(engine.asked) == 10
    assert repeat.window_s >= 0.35
    assert report.points[0].totals["output_throughput"].value > 0


def test_tokens_within_the_window_make_the_throughput() -> None:
    engine = Engine(seconds=0.04, tokens=8)
    stop = Stop(duration=0.5, warmup=0.1)
    report = run(engine, PROMPTS, ClosedLoop(concurrency=5), Options(stop=stop))
    (repeat,) = report.points[0].repeats
    inside = repeat.figures["output_throughput"] * repeat.window_s
    assert sum(repeat.series.tokens_per_s) * repeat.series.step == pytest.approx(inside, rel=1e-3)
    assert 0 < inside <= 8 * len(engine.asked)


def test_an_open_loop_sends_on_time_whatever_the_server_does() -> None:
    class Slow(Engine):
        """Answers nobody before all have asked."""

        async def generate(self, request: Request) -> RequestRecord:
            waiting = asyncio.ensure_future(super().generate(request))
            while len(self.asked) < 30:
                await asyncio.sleep(0.005)
            return await waiting

    engine = Slow(seconds=0.0)
    load = OpenLoop(type="open", rate=100, arrivals="constant")
    report = run(engine, PROMPTS, load, Options(stop=count(30)))
    gaps = [b.intended - a.intended for a, b in itertools.pairwise(engine.asked)]
    assert gaps == [pytest.approx(0.01)] * 29
    assert measured(report) == 30


def test_a_stall_counts_for_everybody_who_was_to_be_served_in_it() -> None:
    """Coordinated omission: the client itself stands still for 0.3 s."""
    engine = Engine(seconds=0.001, tokens=1)

    def stall(request: Request) -> None:
        if request.number == 5:
            time.sleep(0.3)

    engine.before = stall
    load = OpenLoop(type="open", rate=100, arrivals="constant")
    report = run(engine, PROMPTS, load, Options(stop=count(40)))
    spans = report.points[0].repeats[0].spans
    latencies = [span.ended - span.intended for span in spans]
    for late in range(25):
        assert latencies[5 + late] >= 0.3 - late * 0.01 - 0.002
    health = report.points[0].repeats[0].client
    assert health.saturated
    assert health.send_lag_p99_ms > 100
    assert any("saturated" in note for note in report.notes)


def test_the_client_is_judged_by_its_work_in_the_window_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the warm-up nor the wait for the last answers makes it look less busy."""
    engine, course = Engine(seconds=0.4), []

    class Told(Watch):
        def begin(self) -> None:
            course.append(("begin", len(engine.asked)))
            super().begin()

        def end(self) -> None:
            course.append(("end", engine.running))
            super().end()

    monkeypatch.setattr("toolkit.bench.measuring.Watch", Told)
    load = OpenLoop(type="open", rate=100, arrivals="constant")
    run(engine, PROMPTS, load, Options(stop=Stop(duration=0.2, warmup=0.2)))
    before, at_start, end, after = course[-4:]
    assert (before[0], at_start[0], end[0], after[0]) == ("begin", "begin", "end", "end")
    assert before[1] == 0 < at_start[1], "the warm-up had begun"
    assert end[1] > 0 == after[1], "answers were still on their way"


def test_what_a_client_used_is_counted_from_begin_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = used = 0.0

    async def watched() -> float:
        nonlocal now, used
        async with Watch() as watch:
            now, used = 10.0, 9.0
            watch.begin()
            now, used = 12.0, 10.0
            watch.end()
            now, used = 20.0, 18.0
        return watch.health([]).cpu_share

    monkeypatch.setattr("toolkit.bench.saturation.clock", lambda: now)
    monkeypatch.setattr("toolkit.bench.saturation.time.process_time", lambda: used)
    assert asyncio.run(watched()) == pytest.approx(0.5)


@pytest.mark.parametrize("arrivals", ["poisson", "constant", "burst"])
def test_arrivals_have_the_rate_they_claim(arrivals: Any) -> None:
    load = OpenLoop(type="open", rate=20, arrivals=arrivals, burst_size=10)
    offsets = list(itertools.islice(load.offsets(random.Random(3)), 5000))
    assert offsets == sorted(offsets)
    assert 5000 / offsets[-1] == pytest.approx(20, rel=0.05)
    gaps = [b - a for a, b in itertools.pairwise(offsets)]
    mean = sum(gaps) / len(gaps)
    variation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean
    expected = {"poisson": 1.0, "constant": 0.0, "burst": 3.0}[arrivals]
    assert variation == pytest.approx(expected, abs=0.08)


def test_conversations_take_turns_and_send_the_answers_back() -> None:
    engine = Engine()
    talk = Conversation.model_validate({"type": "conversation", "turns": 3, "system_tokens": 5})
    run(engine, talk, ClosedLoop(concurrency=4), Options(stop=count(24)))
    by_session: dict[int, list[Request]] = {}
    for request in engine.asked:
        by_session.setdefault(request.session, []).append(request)
    assert len(by_session) == 8
    for turns in by_session.values():
        assert [request.turn for request in turns] == [0, 1, 2]
        for earlier, later in itertools.pairwise(turns):
            assert f"answer{earlier.number}.3" in later.prompt
            assert later.intended >= earlier.intended


def test_a_failed_turn_ends_its_conversation() -> None:
    engine = Engine()
    engine.fails = lambda request: request.turn == 1
    talk = Conversation.model_validate({"type": "conversation", "turns": 3})
    report = run(engine, talk, ClosedLoop(concurrency=2), Options(stop=count(12)))
    assert {request.turn for request in engine.asked} == {0, 1}
    point = report.points[0]
    assert point.totals["error_share"].value == pytest.approx(0.5)
    assert [(error.kind, error.count) for error in point.errors] == [("server", 6)]
    assert point.distributions["e2e"].count == 6


def test_think_time_passes_between_turns_and_is_no_latency() -> None:
    engine = Engine()
    talk = Conversation.model_validate({"type": "conversation", "turns": 2, "think_time": 0.05})
    report = run(engine, talk, ClosedLoop(concurrency=1), Options(stop=count(2)))
    first, second = report.points[0].repeats[0].spans
    assert second.intended == pytest.approx(first.ended + 0.05, abs=1e-5)


def test_loads_are_interleaved_and_no_two_runs_share_a_prompt() -> None:
    engine = Engine()
    loads = [ClosedLoop(concurrency=1), ClosedLoop(concurrency=2)]
    report = run(engine, PROMPTS, loads, Options(stop=count(6), repeats=3))
    assert [len(point.repeats) for point in report.points] == [3, 3]
    assert len({request.prompt for request in engine.asked}) == 36
    interval = report.points[0].totals["output_throughput"]
    assert interval.method == "t"
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low <= interval.value <= interval.high
    again = Engine()
    run(again, PROMPTS, loads, Options(stop=count(6), repeats=3))
    assert sorted(r.prompt for r in again.asked) == sorted(r.prompt for r in engine.asked)


def test_one_repeat_gets_its_intervals_from_its_requests() -> None:
    report = run(Engine(), PROMPTS, ClosedLoop(concurrency=4), Options(stop=count(40)))
    median = report.points[0].distributions["e2e"].stats["p50"]
    assert median.method == "bootstrap"
    assert median.low is not None
    assert median.high is not None
    assert median.low <= median.value <= median.high


def test_targets_decide_goodput() -> None:
    generous = Options(stop=count(10), objectives={"": Objective(e2e_ms=60_000)})
    strict = Options(stop=count(10), objectives={"": Objective(e2e_ms=0.001)})
    for options, share in ((generous, 1.0), (strict, 0.0)):
        report = run(Engine(), PROMPTS, ClosedLoop(concurrency=2), options)
        assert report.points[0].totals["good_share"].value == share


def test_a_workload_that_runs_out_ends_the_load(tmp_path: Any) -> None:
    from toolkit.bench.workload import PromptFile

    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    made = PromptFile(type="file", path=str(tmp_path / "p.jsonl"), repeat=False)
    report = run(Engine(), made, ClosedLoop(concurrency=8), Options(stop=count(50)))
    assert measured(report) == 2


def test_a_target_that_cannot_be_opened_ends_it() -> None:
    class Absent(Engine):
        async def open(self) -> TargetInfo:
            raise ServerError("not there")

    with pytest.raises(ServerError, match="not there"):
        run(Absent(), PROMPTS, ClosedLoop(), Options(stop=count(1)))


def test_a_bug_in_a_target_is_not_swallowed() -> None:
    class Broken(Engine):
        async def generate(self, request: Request) -> RequestRecord:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(Broken(), PROMPTS, ClosedLoop(concurrency=3), Options(stop=count(9)))


def test_a_window_ends_when_the_prompts_run_out(tmp_path: Any) -> None:
    """What a server does not get asked for is not its slowness."""
    from toolkit.bench.workload import PromptFile

    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    made = PromptFile(type="file", path=str(tmp_path / "p.jsonl"), repeat=False)
    loads = [ClosedLoop(concurrency=2), OpenLoop(type="open", rate=50, arrivals="constant")]
    report = run(Engine(), made, loads, Options(stop=Stop(duration=300, warmup=0)))
    for point in report.points:
        assert point.repeats[0].requests == 2
        assert point.repeats[0].window_s < 150
