"""Metrics computed from records whose times are written down by hand."""

from __future__ import annotations

import pytest

from toolkit.bench.metrics import (
    BY_NAME,
    Objective,
    Sampled,
    Total,
    Window,
    e2e,
    itl,
    tokens_within,
    tpot,
    ttft,
)
from toolkit.bench.records import Request, RequestRecord, Usage


def record(
    intended: float,
    responses: list[float],
    ended: float,
    tokens: int | None,
    *,
    sent: float | None = None,
    request_class: str = "",
    **usage: int,
) -> RequestRecord:
    """A request that completed, or with ``tokens`` None failed."""
    request = Request(1, "p", 8, intended, request_class=request_class)
    made = RequestRecord(request, sent=intended if sent is None else sent, responses=responses)
    if tokens is None:
        made.fail("server", "broke")
        made.ended = ended
    else:
        made.complete(ended, Usage(output_tokens=tokens, **usage))
    return made


def window(*records: RequestRecord, end: float = 10.0, **objectives: Objective) -> Window:
    counted = [one for one in records if 0 <= one.request.intended < end]
    return Window(
        0.0, end, counted, records, {k.removeprefix("any"): v for k, v in objectives.items()}
    )


def total(name: str, window: Window) -> float | None:
    metric = BY_NAME[name]
    assert isinstance(metric, Total)
    return metric.of(window)


def test_latencies_count_from_the_intended_start_not_from_the_sending() -> None:
    late = record(1.0, [3.5, 3.6, 3.9], 4.0, 7, sent=3.0)
    assert ttft(late) == (pytest.approx(2500),)
    assert e2e(late) == (pytest.approx(3000),)


def test_itl_is_between_responses_and_tpot_per_token() -> None:
    one = record(0.0, [1.0, 1.2, 1.6], 1.6, 7)
    assert itl(one) == [pytest.approx(200), pytest.approx(400)]
    assert tpot(one) == (pytest.approx(100),)


def test_a_single_response_has_no_pauses() -> None:
    one = record(0.0, [1.0], 1.0, 7)
    assert itl(one) == []
    assert tpot(one) == ()
    assert ttft(one) == e2e(one)


def test_a_request_that_ended_at_once_has_its_end_as_first_token() -> None:
    assert ttft(record(0.0, [], 0.5, 0)) == (pytest.approx(500),)


def test_without_the_servers_count_each_response_is_a_token() -> None:
    made = RequestRecord(Request(1, "p", 8, 0.0), responses=[1.0, 2.0, 3.0])
    made.complete(3.0, Usage())
    assert made.output_tokens == 3
    made.counted_tokens = 9
    assert made.output_tokens == 9


def test_throughput_counts_tokens_that_arrive_inside_the_window() -> None:
    before = record(-2.0, [-1.0, 1.0], 1.0, 10)
    inside = record(1.0, [2.0, 3.0], 3.0, 20)
    after = record(9.0, [9.5, 10.5, 11.0, 12.0], 12.0, 40)
    failed = record(2.0, [2.5], 2.6, None)
    assert tokens_within(before, 0, 10) == 5
    assert tokens_within(after, 0, 10) == 10
    assert tokens_within(failed, 0, 10) == 0
    found = window(before, inside, after, failed)
    assert total("output_throughput", found) == pytest.approx(3.5)
    assert total("request_throughput", found) == pytest.approx(0.2)


def test_goodput_holds_each_class_to_its_own_targets() -> None:
    quick = record(1.0, [1.1, 1.2], 1.2, 2)
    slow = record(1.0, [3.0, 3.1], 3.1, 2)
    patient = record(1.0, [3.0, 3.1], 3.1, 2, request_class="batch")
    failed = record(1.0, [], 1.1, None)
    found = window(
        quick,
        slow,
        patient,
        failed,
        any=Objective(ttft_ms=500, itl_ms=200),
        batch=Objective(ttft_ms=20_000),
    )
    assert total("good_share", found) == pytest.approx(0.5)
    assert total("goodput", found) == pytest.approx(0.2)
    assert total("error_share", found) == pytest.approx(0.25)


def test_token_speed_is_judged_per_token_whatever_a_response_carries() -> None:
    chunky = record(0.0, [0.1, 1.1], 1.1, 21)
    assert Objective(itl_ms=60).met(chunky)
    assert not Objective(itl_ms=40).met(chunky)


def test_without_targets_there_is_no_goodput() -> None:
    found = window(record(1.0, [1.1], 1.1, 2))
    assert total("goodput", found) is None
    assert total("good_share", found) is None


def test_cache_and_draft_shares_weigh_tokens_not_requests() -> None:
    found = window(
        record(1, [2], 2, 8, prompt_tokens=100, cached_tokens=0),
        record(2, [3], 3, 8, prompt_tokens=300, cached_tokens=300),
        record(3, [4], 4, 8, draft_tokens=10, accepted_draft_tokens=5),
        record(4, [5], 5, 8, draft_tokens=30, accepted_draft_tokens=30),
    )
    assert total("kv_reuse", found) == pytest.approx(0.75)
    assert total("draft_acceptance", found) == pytest.approx(35 / 40)


def test_what_the_server_does_not_report_is_absent_not_zero() -> None:
    found = window(record(1, [2], 2, 8))
    assert total("kv_reuse", found) is None
    assert total("draft_acceptance", found) is None
    queue = BY_NAME["queue_time"]
    assert isinstance(queue, Sampled)
    assert queue.of(record(1, [2], 2, 8)) == ()


def test_requests_in_flight_are_averaged_over_the_window() -> None:
    found = window(record(0, [1], 5, 1), record(5, [6], 15, 1), record(-5, [1], 5, 1))
    assert total("in_flight", found) == pytest.approx(1.5)


def test_every_metric_has_a_unit_and_a_direction() -> None:
    assert len(BY_NAME) == len({metric.title for metric in BY_NAME.values()})
    assert all(metric.unit and metric.better for metric in BY_NAME.values())
