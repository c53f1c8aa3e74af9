"""Several load processes are one load: the same requests at the same times, one result."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_bench_load import Engine
from test_bench_method import tokenizer_with_beginning

from toolkit.bench.chat import Message, TemplateChat
from toolkit.bench.client import Client
from toolkit.bench.load import ClosedLoop, Load, OpenLoop, Stop, TraceLoop
from toolkit.bench.measuring import Harvest, Job, conclude, measure, run_job
from toolkit.bench.metrics import Objective
from toolkit.bench.records import Request, RequestRecord, Usage, clock
from toolkit.bench.runner import Options, run
from toolkit.bench.saturation import ClientHealth
from toolkit.bench.scenario import parse_scenario
from toolkit.bench.summary import Measurement
from toolkit.bench.target import TargetInfo
from toolkit.bench.vocabulary import Tokens
from toolkit.bench.workers import Fleet, _Worker, processes_for, processes_of
from toolkit.bench.workload import Independent, Material, PromptFile, TraceFile
from toolkit.errors import EnvironmentError_, ServerError, UnsupportedError
from toolkit.progress import Silent

PROMPTS = Independent(prompt_tokens={"distribution": "fixed", "tokens": 4})  # type: ignore[arg-type]


class Quick:
    """A target that can be sent to another process. Answers at once; ``dies`` at a request."""

    def __init__(self, seconds: float = 0.0, dies: int | None = None) -> None:
        self.seconds, self.dies = seconds, dies

    async def open(self) -> TargetInfo:
        return TargetInfo("quick", "direct")

    async def generate(self, request: Request) -> RequestRecord:
        if request.number == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        record = RequestRecord(request, sent=clock())
        await asyncio.sleep(self.seconds)
        record.responses.append(clock())
        record.text = f"{os.getpid()}"
        record.complete(clock(), Usage(output_tokens=1))
        return record

    async def close(self) -> None: ...


class Uneven(Quick):
    """Answers requests of even numbers, and leaves a mark; the others never."""

    def __init__(self, marks: Path) -> None:
        super().__init__()
        self.marks = marks

    async def generate(self, request: Request) -> RequestRecord:
        if request.number % 2:
            await asyncio.sleep(3600)
        record = await super().generate(request)
        (self.marks / "answered").touch()
        return record


class Loud(Quick):
    """Says more in one line than a pipe holds, as a warning that quotes a prompt does."""

    async def open(self) -> TargetInfo:
        sys.stderr.write("x" * 500_000)
        return await super().open()


class Refusing(Quick):
    async def open(self) -> TargetInfo:
        if os.environ.get("PYTEST_CURRENT_TEST_PARENT") != str(os.getpid()):
            raise ServerError("no more connections", where="here", hint="wait")
        return await super().open()


class Broken(Quick):
    async def generate(self, request: Request) -> RequestRecord:
        raise RuntimeError("a bug")


class Team:
    """Three load processes that stay for all tests of this module, and the target itself."""

    def __init__(self) -> None:
        self.loop, self.target = asyncio.new_event_loop(), Quick()
        self.fleet = Fleet(self.target, 3)
        self.loop.run_until_complete(self.fleet.open())

    def measured(self, load: Load, stop: Stop, workload: Any = PROMPTS) -> Measurement:
        job = Job(workload, load, Options(stop=stop, seed=5), "1.1")
        found = self.loop.run_until_complete(self.fleet.measure(job, Silent()))
        assert found
        return found

    def alone(self, load: Load, stop: Stop, workload: Any = PROMPTS) -> Measurement:
        work = measure(self.target, workload, load, Options(stop=stop, seed=5), label="1.1")
        found = self.loop.run_until_complete(work)
        assert found
        return found


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    made = Team()
    yield made
    made.loop.run_until_complete(made.fleet.close())
    made.loop.close()


def asked(found: Measurement) -> list[tuple[int, str, float]]:
    """Session, prompt and start of what counts."""
    start = found.window.start
    return sorted(
        (r.request.session, r.request.prompt, round(r.request.intended - start, 6))
        for r in found.window.counted
    )


def workers_of(found: Measurement) -> int:
    return len({record.text for record in found.window.present})


@pytest.mark.parametrize("arrivals", ["poisson", "burst"])
def test_the_arrivals_of_all_are_those_of_one(team: Team, arrivals: Any) -> None:
    load = OpenLoop(type="open", rate=400, arrivals=arrivals, burst_size=5)
    stop = Stop(requests=40, warmup_requests=7)
    one, three = team.alone(load, stop), team.measured(load, stop)
    assert asked(three) == asked(one)
    assert (workers_of(one), workers_of(three)) == (1, 3)
    numbers = sorted(record.request.number for record in three.window.counted)
    assert len(set(numbers)) == 40
    assert three.client.processes == 3


def test_a_stretch_of_time_has_the_same_requests(team: Team) -> None:
    load = OpenLoop(type="open", rate=100)
    stop = Stop(duration=0.5, warmup=0.2)
    one, two = team.alone(load, stop), team.measured(load, stop)
    assert asked(two) == asked(one)
    assert two.window.length == pytest.approx(0.5)
    assert len(two.window.present) > len(two.window.counted)


def test_a_trace_is_divided_and_keeps_its_times(team: Team, tmp_path: Path) -> None:
    row = '{"timestamp": %d, "input_length": %d, "output_length": 1}'
    rows = (row % (n * n, n + 3) for n in range(20))
    (tmp_path / "t").write_text("\n".join(rows))
    trace = TraceFile(type="trace", path=str(tmp_path / "t"))
    load, stop = TraceLoop(type="trace"), Stop(duration=60, warmup=0)
    one, three = team.alone(load, stop, trace), team.measured(load, stop, trace)
    assert asked(three) == asked(one)
    assert len(asked(one)) == 20
    assert three.window.length < 30


def test_users_and_prompts_are_divided(team: Team, tmp_path: Path) -> None:
    (tmp_path / "p").write_text("".join(f'{{"prompt": "p{n}"}}\n' for n in range(9)))
    file = PromptFile(type="file", path=str(tmp_path / "p"), shuffle=True)
    stop = Stop(requests=18, warmup_requests=5)
    one = team.alone(ClosedLoop(concurrency=5), stop, file)
    two = team.measured(ClosedLoop(concurrency=5), stop, file)
    assert [entry[:2] for entry in asked(two)] == [entry[:2] for entry in asked(one)]
    assert workers_of(two) == 3


def test_no_more_processes_than_users_work(team: Team) -> None:
    found = team.measured(ClosedLoop(concurrency=1), Stop(requests=6, warmup_requests=0))
    assert workers_of(found) == 1
    assert len(found.window.counted) == 6


def test_parts_of_a_job_make_the_whole() -> None:
    options = Options(stop=Stop(requests=10, warmup_requests=5))
    load = OpenLoop(type="open", rate=2, arrivals="constant")
    parts = [Job(PROMPTS, load, options, "x", part, 3) for part in range(3)]
    assert [part.share(10) for part in parts] == [4, 3, 3]
    # Warm-up takes sessions 0 to 4; 5 is the first that counts, and starts at 0 s.
    firsts = {part.part: next(part.offsets()) for part in parts}
    assert firsts == {2: 0.0, 0: 0.5, 1: 1.0}
    assert [list(itertools.islice(part.material.numbers(), 2)) for part in parts] == [
        [0, 3],
        [1, 4],
        [2, 5],
    ]


def test_only_one_part_waits_for_a_request_in_an_empty_window() -> None:
    options = Options(stop=Stop(duration=1, warmup=5))
    load = OpenLoop(type="open", rate=0.5, arrivals="constant")
    assert [Job(PROMPTS, load, options, "x", part, 3).least() for part in range(3)] == [1, 0, 0]
    users = ClosedLoop(concurrency=4)
    assert [Job(PROMPTS, users, options, "x", part, 3).least() for part in range(3)] == [2, 1, 1]


def test_what_parts_bring_is_put_together() -> None:
    def harvest(numbers: range, lag: float, exhausted: bool = False) -> Harvest:
        records = []
        for number in numbers:
            record = RequestRecord(Request(number, "p", 1, 1.0 + number), sent=1.0)
            record.complete(1.5 + number, Usage(output_tokens=1))
            records.append(record)
        return Harvest(records, 1.0, 9.0, exhausted, False, ClientHealth.of(lag, 1.0, 0.3))

    job = Job(PROMPTS, OpenLoop(type="open", rate=1), Options())
    found = conclude(job, [harvest(range(0, 6, 2), 30.0), harvest(range(1, 6, 2), 2.0)], Silent())
    assert found
    assert [record.request.number for record in found.window.counted] == [0, 1, 2, 3, 4, 5]
    assert (found.window.start, found.window.end) == (1.0, 9.0)
    assert found.client.saturated
    assert found.client.loop_lag_p99_ms == 30.0
    assert found.client.reasons == ("its event loop ran 30 ms late (p99)",)
    half = conclude(
        job, [harvest(range(0, 6, 2), 1.0, True), harvest(range(1, 6, 2), 1.0)], Silent()
    )
    assert half
    assert half.window.end == 9.0
    assert conclude(job, [], Silent()) is None


def test_a_part_stopped_before_it_began_does_not_move_the_window() -> None:
    class Waiting:
        async def begin(self) -> float:
            await asyncio.sleep(3600)
            return 0.0

        def ended(self, record: RequestRecord) -> None: ...

    async def stopped(job: Job) -> Harvest:
        task = asyncio.ensure_future(run_job(Quick(), job, Waiting()))
        await asyncio.sleep(0.01)
        task.cancel()
        return await task

    record = RequestRecord(Request(0, "p", 1, 101.0), sent=101.0)
    record.complete(102.0, Usage(output_tokens=1))
    begun = Harvest([record], 100.0, 110.0, False, True, ClientHealth.of(1.0, 1.0, 0.3))
    job = Job(PROMPTS, ClosedLoop(concurrency=2), Options(stop=Stop(duration=10)), "x", 1, 2)
    found = conclude(job, [begun, asyncio.run(stopped(job))], Silent())
    assert found
    assert (found.window.start, found.window.end) == (100.0, 102.0)
    assert found.partial


def test_a_report_from_several_processes() -> None:
    options = Options(
        stop=Stop(requests=20, warmup_requests=2),
        repeats=2,
        processes=2,
        objectives={"": Objective(e2e_ms=60_000)},
    )
    loads = [ClosedLoop(concurrency=2), OpenLoop(type="open", rate=500)]
    report = run(Quick(), PROMPTS, loads, options)
    assert [[one.completed for one in point.repeats] for point in report.points] == [[20, 20]] * 2
    assert {one.client.processes for point in report.points for one in point.repeats} == {2}
    assert report.points[0].totals["good_share"].value == 1.0


def test_ctrl_c_stops_all_and_keeps_what_was_measured(tmp_path: Path) -> None:
    async def interrupted() -> tuple[Measurement | None, bool]:
        options = Options(stop=Stop(duration=600, warmup=0), processes=2)
        async with Client(Uneven(tmp_path), PROMPTS, options, Silent()) as client:
            task = asyncio.ensure_future(client.measure(ClosedLoop(concurrency=4), "1.1"))
            while not any(tmp_path.iterdir()):
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            return await task, client.interrupted

    found, told = asyncio.run(interrupted())
    assert told
    assert found
    assert found.partial
    assert found.client.processes == 2
    assert 0 < found.window.length < 300


def test_ctrl_c_keeps_the_part_of_a_process_that_had_done_it(tmp_path: Path) -> None:
    """And does not wait for it to say so again."""

    async def interrupted() -> Measurement | None:
        options = Options(stop=Stop(requests=6, warmup_requests=0))
        fleet = Fleet(Uneven(tmp_path), 2)
        await fleet.open()
        job = Job(PROMPTS, OpenLoop(type="open", rate=1000), options)
        task = asyncio.ensure_future(fleet.measure(job, Silent()))
        while not fleet._workers[0].done:
            await asyncio.sleep(0.01)
        task.cancel()
        found = await task
        await fleet.close()
        return found

    found = asyncio.run(interrupted())
    assert found
    assert [record.request.number for record in found.window.counted] == [0, 2, 4]
    assert found.partial


def test_a_part_that_is_missing_makes_the_whole_partial(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer when it is stopped has nothing, however much the others have."""

    first, mute, last = team.fleet._workers
    real = mute.harvest

    async def lost(progress: Any) -> Harvest:
        await asyncio.sleep(3600)
        return await real(progress)

    async def interrupted() -> Measurement | None:
        job = Job(PROMPTS, ClosedLoop(concurrency=3), Options(stop=Stop(requests=9)))
        task = asyncio.ensure_future(team.fleet.measure(job, Silent()))
        first.done = last.done = None
        while not (first.done and last.done):
            await asyncio.sleep(0.01)
        task.cancel()
        found = await task
        await real(None)
        return found

    monkeypatch.setattr(mute, "harvest", lost)
    monkeypatch.setattr("toolkit.bench.workers._STOPPING", 0.1)
    found = team.loop.run_until_complete(interrupted())
    assert found
    assert len(found.window.counted) == 6
    assert found.partial


def test_a_process_may_say_what_it_likes() -> None:
    report = run(Loud(), PROMPTS, ClosedLoop(), Options(stop=Stop(requests=2), processes=2))
    assert report.points[0].repeats[0].completed == 2


def test_what_lies_in_the_working_directory_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("toolkit", "numpy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    report = run(Quick(), PROMPTS, ClosedLoop(), Options(stop=Stop(requests=2), processes=2))
    assert report.points[0].repeats[0].completed == 2


def test_interrupted_while_they_warm_up_they_have_nothing_and_go_on(team: Team) -> None:
    stop = Stop(requests=1, warmup_requests=1_000_000)
    job = Job(PROMPTS, ClosedLoop(concurrency=4), Options(stop=stop), "x")

    async def interrupted() -> Measurement | None:
        task = asyncio.ensure_future(team.fleet.measure(job, Silent()))
        await asyncio.sleep(0.2)
        task.cancel()
        return await task

    assert team.loop.run_until_complete(interrupted()) is None
    again = team.measured(ClosedLoop(concurrency=3), Stop(requests=6, warmup_requests=0))
    assert len(again.window.counted) == 6


def test_a_process_that_dies_is_reported() -> None:
    options = Options(stop=Stop(requests=20, warmup_requests=0), processes=2)
    with pytest.raises(EnvironmentError_, match=r"load process 2 of 2 died \(signal 9\)") as caught:
        run(Quick(dies=3), PROMPTS, ClosedLoop(concurrency=2), options)
    assert caught.value.exit_code == 3


def test_what_was_measured_before_a_process_died_is_kept() -> None:
    options = Options(stop=Stop(requests=4, warmup_requests=0), processes=2)
    loads = [ClosedLoop(concurrency=2), ClosedLoop(concurrency=4)]
    report = run(SecondRun(), PROMPTS, loads, options)
    assert report.partial
    assert [point.label for point in report.points] == ["2 users"]
    assert report.failure
    assert "died (signal 9)" in report.failure
    assert report.failure in report.notes
    assert "nothing was measured under 4 users" in report.notes


class SecondRun(Quick):
    """Dies at the third request that its process sees: in the second load."""

    seen = 0

    async def generate(self, request: Request) -> RequestRecord:
        self.seen += 1
        if self.seen == 3:
            self.dies = request.number
        return await super().generate(request)


def test_what_a_process_cannot_open_is_told_as_from_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTEST_CURRENT_TEST_PARENT", str(os.getpid()))
    with pytest.raises(ServerError, match="no more connections") as caught:
        run(Refusing(), PROMPTS, ClosedLoop(), Options(processes=2))
    assert (caught.value.where, caught.value.hint) == ("here", "wait")


def test_a_bug_in_a_target_comes_through() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        run(Broken(), PROMPTS, ClosedLoop(), Options(stop=Stop(requests=4), processes=2))


def test_a_target_that_cannot_be_sent_is_refused() -> None:
    engine = Engine()
    assert run(engine, PROMPTS, ClosedLoop(), Options(stop=Stop(requests=2))).points
    with pytest.raises(UnsupportedError, match="cannot be measured from 2 processes"):
        run(engine, PROMPTS, ClosedLoop(), Options(processes=2))


def test_tokenizer_and_template_can_be_sent(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    made = Material(tokenizer_with_beginning(tmp_path), TemplateChat(tmp_path), "s", (1, 2))
    again = pickle.loads(pickle.dumps(made))
    assert isinstance(again.vocabulary, Tokens)
    assert again.vocabulary.count("waa wab") == 3
    assert again.chat.prompt([Message("user", "hello")]) == "hello!"
    assert again.part == (1, 2)


@pytest.mark.parametrize(
    ("load", "cores", "expected"),
    [
        (ClosedLoop(concurrency=8), 64, 1),
        (ClosedLoop(concurrency=256), 64, 4),
        (ClosedLoop(concurrency=257), 64, 5),
        (ClosedLoop(concurrency=4096), 8, 4),
        (ClosedLoop(concurrency=4096), 1, 1),
        (OpenLoop(type="open", rate=10), 64, 1),
        (OpenLoop(type="open", rate=200), 64, 4),
        (TraceLoop(type="trace"), 64, 1),
        (TraceLoop(type="trace", rate=200), 64, 4),
    ],
)
def test_processes_by_load_and_cores(
    load: Load, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert processes_for([ClosedLoop(concurrency=1), load], output_tokens=100) == expected


def test_processes_for_a_trace_by_its_own_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    row = '{"timestamp": %d, "input_length": 4, "output_length": 100}\n'
    (tmp_path / "t").write_text("".join(row % (n * 10) for n in range(40)))
    scenario = f"workload: {{type: trace, path: {tmp_path / 't'}}}\nload: {{type: trace%s}}"
    for speed, expected in (("", 2), (", speedup: [1, 3]", 6), (", rate: 5", 1)):
        assert processes_of(parse_scenario(scenario % speed, "x")) == expected


@pytest.mark.parametrize("processes", [1, 2])
def test_a_client_may_have_as_many_connections_as_the_system_allows(processes: int) -> None:
    """Over HTTP, each running request is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 900), hard))
    try:
        options = Options(stop=Stop(requests=2, warmup_requests=0), processes=processes)
        report = run(Allowed(), PROMPTS, OpenLoop(type="open", rate=100), options)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {span.output_tokens for span in report.points[0].repeats[0].spans} == {min(hard, 10**6)}


class Allowed(Quick):
    """Answers with how many files its process may open."""

    async def generate(self, request: Request) -> RequestRecord:
        record = await super().generate(request)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        record.usage = Usage(output_tokens=min(soft, 10**6))
        return record


def test_processes_for_conversations_by_all_their_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    talks = "workload: {type: conversation, turns: 5, output_tokens: 100}"
    assert processes_of(parse_scenario(f"{talks}\nload: {{type: open, rate: 100}}", "x")) == 10


@pytest.mark.parametrize(
    ("settings", "expected"), [("", 8), (", limit: 100", 2), (", limit: 10", 1)]
)
def test_processes_for_a_search_by_its_limit(
    settings: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far it goes is not known; so many as serve the most that it may try, up to a few."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    made = f"workload: {{type: independent, output_tokens: 100}}\nload: {{type: search{settings}}}"
    assert processes_of(parse_scenario(made, "x")) == expected
    named = f"processes: 3\n{made}"
    assert processes_of(parse_scenario(named, "x")) == 3


@pytest.mark.parametrize("ahead", [-3.0, 3.0])
def test_times_of_another_clock_are_not_mixed_in(
    ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def its(self: _Worker, wanted: str) -> float:
        return clock() + ahead

    monkeypatch.setattr(_Worker, "send", lambda self, *message: None)
    monkeypatch.setattr(_Worker, "expect", its)
    with pytest.raises(
        EnvironmentError_, match="clock of load process 2 of 2 differs by"
    ) as caught:
        asyncio.run(_Worker(1, 2).check_clock())
    assert "--processes 1" in str(caught.value.hint)
