"""The search for the highest rate: its logic on a model of a queue, and a search for real."""

from __future__ import annotations

import asyncio
import functools
import math
import os
import random
import signal
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from test_bench_load import PROMPTS, Engine

from toolkit.bench.files import read_report, write_report
from toolkit.bench.html import render_html
from toolkit.bench.load import OpenLoop, Stop
from toolkit.bench.markdown import render_markdown
from toolkit.bench.metrics import Objective
from toolkit.bench.records import Request, RequestRecord, Usage
from toolkit.bench.report import BenchReport
from toolkit.bench.runner import Options
from toolkit.bench.scenario import parse_scenario
from toolkit.bench.sweep import find_rate
from toolkit.bench.sweep_search import Outcome, RateSearch, Search
from toolkit.bench.workload import TraceFile
from toolkit.errors import ServerError, SpecError

SERVICE = 0.25
"""Seconds that the modelled server takes for a request; it can serve 4 a second."""


def spec(**settings: object) -> RateSearch:
    return RateSearch.model_validate({"type": "search", **settings})


def searched(
    settings: RateSearch, measure: Callable[[float], Outcome], most: int = 200
) -> tuple[Search, list[float]]:
    search, tried = Search(settings), []
    while (rate := search.next()) is not None:
        tried.append(rate)
        assert len(tried) < most
        search.tell(rate, measure(rate))
    return search, tried


def queue(rate: float, dice: random.Random | None, requests: int, slo: float) -> Outcome:
    """One server, first come first served; constant arrivals, or Poisson ones with ``dice``."""
    now = free = 0.0
    good = 0
    for _ in range(requests):
        now += dice.expovariate(rate) if dice else 1 / rate
        free = max(free, now) + SERVICE
        good += free - now <= slo
    return Outcome(good, requests, in_flight=rate * SERVICE)


@pytest.mark.parametrize("start", [0.01, 1.0, 3.9, 4.0, 4.1, 700.0])
@pytest.mark.parametrize("tolerance", [0.2, 0.05, 0.01])
def test_the_limit_of_a_steady_queue_is_found_from_anywhere(start: float, tolerance: float) -> None:
    """Constant arrivals are all in time up to 4 a second, and fewer and fewer above."""
    search, tried = searched(
        spec(start=start, tolerance=tolerance), lambda rate: queue(rate, None, 400, slo=0.3)
    )
    assert search.met is not None
    assert search.missed is not None
    true = steady_limit()
    assert search.met <= true < search.missed <= search.met * (1 + tolerance)
    assert search.bound == "server"
    assert len(tried) <= 2 + abs(math.log2(true / start)) + math.log2(2 * math.log(4) / tolerance)


@functools.cache
def steady_limit() -> float:
    rates = (3 + step / 1000 for step in range(2000))
    return max(rate for rate in rates if queue(rate, None, 400, slo=0.3).share >= 0.95)


@functools.cache
def long_run_limit() -> float:
    dice = random.Random(99)
    rates = (1.5 + step / 10 for step in range(20))
    return max(rate for rate in rates if queue(rate, dice, 20_000, slo=1.0).share >= 0.95)


def test_a_noisy_queue_is_searched_to_its_limit_or_near() -> None:
    """Poisson arrivals: the share at a rate varies from window to window."""
    found = []
    for seed in range(12):
        dice = random.Random(seed)
        search, tried = searched(spec(), lambda rate, d=dice: queue(rate, d, 300, slo=1.0))  # type: ignore[misc]
        assert search.bound == "server"
        assert len(tried) < 30
        found.append((search.met or 0.0) / long_run_limit())
    assert statistics.median(found) == pytest.approx(1.0, abs=0.1)
    assert sorted(found)[1] > 0.85
    assert min(found) > 0.75
    assert max(found) < 1.2


def test_rates_double_then_close_in() -> None:
    _, tried = searched(spec(tolerance=0.2), lambda rate: Outcome(1000 * (rate <= 5), 1000))
    assert tried == [1.0, 2.0, 4.0, 8.0, 5.657, 4.757]


def test_a_start_above_the_limit_of_the_server_falls_first() -> None:
    _, tried = searched(spec(start=64, tolerance=1), lambda rate: Outcome(1000 * (rate <= 5), 1000))
    assert tried == [64.0, 16.0, 4.0, 8.0]


def test_a_close_call_is_tried_again_and_counted_together() -> None:
    results = iter([Outcome(94, 100), Outcome(100, 100)])
    search = Search(spec())
    for _ in range(2):
        assert search.next() == 1.0
        search.tell(1.0, next(results))
    # 194 of 200 are more than a standard error above 95%.
    assert search.verdict(1.0) == "met"
    clear = Search(spec())
    clear.tell(1.0, Outcome(80, 100))
    assert clear.verdict(1.0) == "missed"
    doubtful = Search(spec())
    for _ in range(3):
        assert doubtful.next() == 1.0
        doubtful.tell(1.0, Outcome(94, 100))
    assert doubtful.verdict(1.0) == "missed"


def test_what_would_be_the_result_is_confirmed() -> None:
    """One unlucky window below the limit does not end the search too low."""
    seen: list[float] = []

    def measure(rate: float) -> Outcome:
        seen.append(rate)
        unlucky = rate == 4.0 and seen.count(4.0) == 1
        return Outcome(46 if unlucky else 50 * (rate <= 5), 50)

    search, tried = searched(spec(tolerance=0.5, share=0.97), measure)
    assert tried[:4] == [1.0, 2.0, 4.0, 2.828]
    assert tried.count(4.0) == 3
    assert search.met == 4.0
    assert search.missed == 5.657


def test_a_saturated_client_is_not_held_against_the_server() -> None:
    def measure(rate: float) -> Outcome:
        return Outcome(1000 if rate <= 6 else 20, 1000, saturated=rate > 6)

    search, tried = searched(spec(tolerance=0.5), measure)
    assert search.bound == "client"
    assert search.verdict(8.0) == "client"
    assert tried.count(8.0) == 2, "once more, for it may have been a hiccup"
    assert search.met == pytest.approx(5.657)


def test_a_hiccup_of_the_client_is_forgotten() -> None:
    search = Search(spec())
    search.tell(1.0, Outcome(10, 100, saturated=True))
    assert search.next() == 1.0
    search.tell(1.0, Outcome(100, 100))
    assert search.verdict(1.0) == "met"


def test_a_saturated_client_whose_requests_met_the_slo_tells_enough() -> None:
    search = Search(spec())
    search.tell(1.0, Outcome(100, 100, saturated=True))
    assert search.verdict(1.0) == "met"


def test_no_rate_above_the_limit_is_tried() -> None:
    search, tried = searched(spec(start=3, limit=10), lambda rate: Outcome(1000, 1000))
    assert tried == [3.0, 6.0, 10.0]
    assert (search.met, search.missed, search.bound) == (10.0, None, "limit")


def test_what_cannot_be_in_time_even_alone_ends_the_search() -> None:
    search, tried = searched(spec(), lambda rate: Outcome(0, 100, in_flight=2 * rate))
    assert tried == [1.0, 0.25, 0.0625]
    assert (search.met, search.bound) == (None, "floor")


def test_a_search_ends_after_so_many_windows() -> None:
    search, tried = searched(spec(probes=5), lambda rate: Outcome(1000 * (rate <= 5), 1000))
    assert len(tried) == 5
    assert (search.met, search.missed, search.bound) == (4.0, 5.657, "probes")


def test_a_search_that_goes_on_is_not_bounded() -> None:
    search = Search(spec())
    search.tell(1.0, Outcome(100, 100))
    assert search.bound == "interrupted"


def test_windows_are_long_enough_for_their_requests() -> None:
    settings = spec(requests=50)
    assert settings.stop(0.5, Stop(duration=20)).duration == 100
    assert settings.stop(10, Stop(duration=20)).duration == 20
    with pytest.raises(SpecError, match="no loads of its own"):
        _ = settings.loads
    bursts = spec(arrivals="burst", burst_size=3).load(2.0)
    assert bursts == OpenLoop(type="open", rate=2.0, arrivals="burst", burst_size=3)


class Served(Engine):
    """Meets the SLO up to a number of requests a window; no clock decides."""

    def __init__(self, most: float) -> None:
        super().__init__(seconds=0.0, tokens=1)
        self.most = most

    async def generate(self, request: Request) -> RequestRecord:
        self.before(request)
        self.asked.append(request)
        record = RequestRecord(request, sent=request.intended)
        late = self.late(request)
        record.responses.append(request.intended + late)
        record.complete(request.intended + late, Usage(output_tokens=1))
        await asyncio.sleep(0)
        return record

    def late(self, request: Request) -> float:
        """Constant arrivals: the gap to the request before tells the rate."""
        if not request.number:
            return 0.001
        return 0.001 if request.intended - self.asked[-2].intended >= 1 / self.most else 9.0


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes the client late, which is not what these tests are about."""
    monkeypatch.setattr("toolkit.bench.saturation._LAG_LIMIT_MS", math.inf)
    monkeypatch.setattr("toolkit.bench.saturation._CPU_LIMIT", math.inf)


def options(**changes: object) -> Options:
    made = {
        "stop": Stop(requests=20, warmup_requests=0),
        "objectives": {"": Objective(ttft_ms=100)},
        **changes,
    }
    return Options(**made)  # type: ignore[arg-type]


def find(engine: Engine, **settings: object) -> BenchReport:
    chosen = {"arrivals": "constant", "start": 100, "tolerance": 0.5, **settings}
    return find_rate(engine, PROMPTS, spec(**chosen), options())


@pytest.mark.usefixtures("calm")
def test_a_search_reports_every_window_and_what_it_found() -> None:
    engine = Served(most=300)
    report = find(engine)
    found = report.found_rate
    assert found
    assert (found.rate, found.above, found.bound) == (282.8, 400.0, "server")
    assert [(probe.rate, probe.good) for probe in found.probes[:2]] == [(100.0, 20), (200.0, 20)]
    assert [point.label for point in report.points] == [
        "100/s constant",
        "200/s constant",
        "282.8/s constant",
        "400/s constant",
    ]
    assert found.verdicts["400/s constant"] == "missed"
    assert found.sentence == (
        "282.8 sessions a second keep 95.0% of the requests within the SLO; 400 do not"
    )
    prompts = [request.prompt for request in engine.asked]
    assert len(set(prompts)) == len(prompts), "no window finds another's prompts cached"
    assert not report.partial


@pytest.mark.usefixtures("calm")
def test_the_report_is_written_with_table_and_plot(tmp_path: Path) -> None:
    report = find(Served(most=300))
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report
    assert report.found_rate
    text = render_markdown(report)
    assert report.found_rate.sentence in text
    assert "the highest rate with 95.0% in the SLO, to 50.0%; constant arrivals" in text
    assert "| 282.8 | met |" in text
    assert "| 400 | missed |" in text
    page = render_html(report)
    assert "Goodput over offered rate" in page
    assert "offered sessions/s" in page
    assert "highest rate in the SLO" in page


@pytest.mark.usefixtures("calm")
def test_ctrl_c_keeps_what_was_measured() -> None:
    engine = Served(most=300)

    def press(request: Request) -> None:
        if len(engine.asked) == 42:
            os.kill(os.getpid(), signal.SIGINT)

    engine.before = press
    report = find(engine)
    assert report.partial
    assert report.found_rate
    assert report.found_rate.bound == "interrupted"
    assert report.found_rate.rate == 200.0
    assert "interrupted" in report.found_rate.sentence


@pytest.mark.usefixtures("calm")
def test_a_trace_that_is_too_short_ends_the_search_and_is_named(tmp_path: Path) -> None:
    """From some rate on all its requests come in the warm-up, which says nothing of the server."""
    row = '{"timestamp": %d, "input_length": 4, "output_length": 1}\n'
    (tmp_path / "t").write_text("".join(row % (n * 10) for n in range(40)))
    trace = TraceFile(type="trace", path=str(tmp_path / "t"))
    settings = spec(arrivals="trace", start=100, requests=1, share=0.5)
    made = options(stop=Stop(duration=0.1, warmup=0.1))
    report = find_rate(Served(most=1e9), trace, settings, made)
    found = report.found_rate
    assert found
    assert (found.rate, found.above, found.bound) == (200.0, None, "workload")
    assert found.sentence.endswith("for a higher rate, the workload has too few requests")
    assert not report.partial
    with pytest.raises(ServerError, match="nothing was measured") as caught:
        find_rate(Served(most=1e9), trace, spec(**{**settings.model_dump(), "start": 400}), made)
    assert "stop.warmup" in str(caught.value.hint)


def test_without_a_target_there_is_nothing_to_search() -> None:
    with pytest.raises(SpecError, match="no SLO"):
        find_rate(Engine(), PROMPTS, spec(), options(objectives={"": Objective()}))
    with pytest.raises(SpecError, match="workload of type trace"):
        find_rate(Engine(), PROMPTS, spec(arrivals="trace"), options())


def test_a_scenario_can_search() -> None:
    found = parse_scenario("load: {type: search, share: 0.9, start: 2}", "x").load
    assert found == spec(share=0.9, start=2.0)
