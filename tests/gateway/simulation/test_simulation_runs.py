"""A simulation is repeatable, loses nothing, and survives what production has to."""

from __future__ import annotations

from collections import Counter

import pytest

from toolkit.gateway.simulation import (
    ClassLoad,
    EngineModel,
    Lengths,
    Outage,
    Outcome,
    Planned,
    Run,
    Talk,
    conversations,
    percentile,
    poisson,
    simulate,
)
from toolkit.spec.gateway import Scheduling

ENGINE = EngineModel(
    step_s=0.01, prefill_s=1e-4, decode_s=5e-4, slots=8, kv_tokens=20_000, max_num_tokens=1024
)
LOAD = [
    ClassLoad("interactive", 3.0, Lengths(200, 0.5), Lengths(60, 0.5), 256),
    ClassLoad("batch", 4.0, Lengths(400, 0.5), Lengths(100, 0.5), 256),
]


def test_the_same_trace_gives_the_same_run() -> None:
    first, second = (
        simulate(poisson(LOAD, 30, 1), Scheduling(), {"a": ENGINE, "b": ENGINE}) for _ in range(2)
    )
    assert first == second
    assert simulate(poisson(LOAD, 30, 2), Scheduling(), {"a": ENGINE, "b": ENGINE}) != first


@pytest.mark.parametrize("policy", ["fcfs", "latency_aware"])
def test_every_request_ends_and_every_time_is_in_order(policy: str) -> None:
    trace = poisson(LOAD, 60, 1)
    run = simulate(trace, Scheduling.model_validate({"policy": policy}), {"a": ENGINE})
    assert len(run.outcomes) == len(trace)
    assert Counter(one.ended for one in run.outcomes) == {"done": len(trace)}
    for one in run.outcomes:
        assert one.sent_at is not None
        assert one.first_token_at is not None
        assert one.ended_at is not None
        assert one.arrived <= one.sent_at < one.first_token_at <= one.ended_at
    assert sum(one.output_tokens for one in run.outcomes) == sum(p.output_tokens for p in trace)


def test_order_of_arrival_is_kept_under_fcfs() -> None:
    run = simulate(poisson(LOAD, 60, 1), Scheduling(policy="fcfs"), {"a": ENGINE})
    sent = [one.sent_at or 0.0 for one in sorted(run.outcomes, key=lambda one: one.arrived)]
    assert sent == sorted(sent)


def test_a_replica_that_fails_costs_only_what_had_begun() -> None:
    outages = [Outage("a", 10.0, 20.0)]
    run = simulate(poisson(LOAD, 40, 1), Scheduling(), {"a": ENGINE, "b": ENGINE}, outages=outages)
    failed = [one for one in run.outcomes if one.ended == "failed"]
    assert 1 <= len(failed) <= ENGINE.slots
    assert all(one.replica == "a" and one.first_token_at for one in failed)
    assert Counter(one.ended for one in run.outcomes) == {
        "done": len(run.outcomes) - len(failed),
        "failed": len(failed),
    }
    during = [o for o in run.outcomes if o.sent_at is not None and 10 <= o.sent_at < 20]
    after = [o for o in run.outcomes if o.sent_at is not None and o.sent_at >= 20]
    assert {one.replica for one in during} == {"b"}
    assert {one.replica for one in after} == {"a", "b"}


def test_who_waits_too_long_is_ended_and_does_not_hold_a_slot() -> None:
    classes = {"batch": {"max_wait": "3s"}, "interactive": {}}
    section = Scheduling.model_validate({"classes": classes})
    heavy = [ClassLoad("batch", 20.0, Lengths(400), Lengths(200), 256)]
    run = simulate(poisson(heavy, 30, 1), section, {"a": ENGINE})
    ended = Counter(one.ended for one in run.outcomes)
    assert ended["done"] > 60
    assert ended["too_late"] > 100
    assert all((one.queue_s or 0.0) <= 3.0 for one in run.outcomes)


def test_deadlines_end_answers_in_the_engine() -> None:
    late = [Planned(0.0, "batch", 100, 400, 400, deadline_s=2.0), Planned(0.1, "batch", 10, 5, 5)]
    run = simulate(late, Scheduling(), {"a": ENGINE})
    first, second = run.outcomes
    assert first.ended == "overdue"
    assert first.ended_at == pytest.approx(2.0)
    assert 0 < first.output_tokens < 400
    assert second.ended == "done"


def test_turns_follow_one_another() -> None:
    talk = Talk(
        "interactive", 0.5, 4, Lengths(60, 0.3), Lengths(40, 0.3), 128, think_s=1.0, shared=96
    )
    trace = conversations(talk, 30, 1)
    run = simulate(trace, Scheduling(), {"a": ENGINE})
    assert len(run.outcomes) == 4 * len(trace)
    # Nearly all of a turn's prompt was said before.
    assert run.hit_rate() > 0.6
    no_cache = simulate(trace, Scheduling(), {"a": EngineModel(0.01, 1e-4, 5e-4, reuse=False)})
    assert no_cache.hit_rate() == 0


def test_a_run_can_be_stopped() -> None:
    run = simulate(poisson(LOAD, 30, 1), Scheduling(), {"a": ENGINE}, until=5.0)
    assert {one.ended for one in run.outcomes} == {"done", "unfinished"}
    assert max(one.arrived for one in run.outcomes) <= 5.0


def test_tokens_are_counted_where_they_were_made() -> None:
    one = Outcome(
        "1", "a", "done", 0.0, 100, "r", 1.0, 2.0, 4.0, output_tokens=40, cached_tokens=20
    )
    run = Run((one,))
    assert run.tokens_per_s(0, 10) == pytest.approx(12)
    assert run.tokens_per_s(1.5, 3) == pytest.approx((40 + 20) / 1.5)
    assert (one.queue_s, one.ttft_s, one.e2e_s) == (1.0, 2.0, 4.0)
    assert one.itl_s == pytest.approx(2 / 39)


def test_percentiles_lie_between_their_neighbours() -> None:
    assert percentile([3.0, None, 1.0, 2.0], 0.5) == 2.0
    assert percentile([0.0, 10.0], 0.95) == pytest.approx(9.5)
    assert percentile([], 0.5) != percentile([], 0.5)
