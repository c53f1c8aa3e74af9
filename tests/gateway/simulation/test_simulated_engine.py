"""The simulated engine does what a real one would, step by step."""

from __future__ import annotations

import math
import random

import pytest

from toolkit.gateway.simulation.cache import BlockCache, blocks_for
from toolkit.gateway.simulation.engine import Running, SimulatedEngine
from toolkit.gateway.simulation.model import EngineModel
from toolkit.gateway.simulation.trace import Planned

COST = EngineModel(step_s=1.0, prefill_s=0.01, decode_s=0.1, slots=2, max_num_tokens=100)


def planned(
    prompt: int,
    output: int,
    most: int = 0,
    prefix: tuple[int, ...] = (),
    after: tuple[int, ...] = (),
) -> Planned:
    return Planned(0.0, "a", prompt, output, most or output, prefix, after)


def run(engine: SimulatedEngine, *plans: Planned) -> dict[str, tuple[float, float, int]]:
    """First token's and last token's time, and the tokens that were told, of each."""
    requests = [Running(str(k), plan) for k, plan in enumerate(plans)]
    for request in requests:
        engine.add(request)
    now, first, last, told = 0.0, {}, {}, {r.id: 0 for r in requests}
    while (seconds := engine.begin_step()) is not None:
        now += seconds
        end = engine.end_step()
        for request in end.first:
            first[request.id] = now
            told[request.id] += 1
        for request, tokens in end.more:
            told[request.id] += tokens
        for request in end.done:
            last[request.id] = now
    assert set(last) == set(told)
    assert engine.running == 0
    return {r.id: (first[r.id], last[r.id], told[r.id]) for r in requests}


def test_a_lone_request_takes_its_prompt_and_then_a_step_a_token() -> None:
    ((first, last, _),) = run(SimulatedEngine(COST), planned(50, 4)).values()
    assert first == pytest.approx(math.hypot(1, 0.5))
    assert last == pytest.approx(math.hypot(1, 0.5) + 3 * math.hypot(1, 0.1))


def test_a_prompt_beyond_the_budget_takes_several_steps() -> None:
    ((first, _, _),) = run(SimulatedEngine(COST), planned(250, 1)).values()
    assert first == pytest.approx(2 * math.hypot(1, 1) + math.hypot(1, 0.5))


def test_a_prompt_is_read_beside_running_answers() -> None:
    times = run(SimulatedEngine(COST), planned(60, 9), planned(60, 2))
    both = math.hypot(1, 1)  # 60 and 40 tokens in the first step
    assert times["0"][0] == pytest.approx(both)
    assert times["1"][0] == pytest.approx(both + math.hypot(1, 0.2 + 0.1))


def test_the_third_waits_for_a_slot() -> None:
    engine = SimulatedEngine(COST)
    times = run(engine, planned(10, 5), planned(10, 50), planned(10, 5))
    assert times["2"][0] > times["0"][1]
    assert times["2"][1] < times["1"][1]


def test_tokens_are_told_as_they_come() -> None:
    engine = SimulatedEngine(COST, report_every=4)
    _, _, told = run(engine, planned(10, 30))["0"]
    assert 26 <= told <= 30


def test_a_prompt_that_was_computed_before_is_not_computed_again() -> None:
    engine = SimulatedEngine(COST)
    names = tuple(range(10))
    run(engine, planned(70, 20, prefix=names[:2], after=names[:2]))
    again = run(engine, planned(100, 1, prefix=names[:3]))
    assert again["0"][0] == pytest.approx(math.hypot(1, 0.01 * (100 - 64)))


def test_a_request_that_was_taken_back_leaves_nothing() -> None:
    engine = SimulatedEngine(EngineModel(step_s=1, slots=2, kv_tokens=320, context_s=1e-3))
    requests = [Running(str(k), planned(60, 50)) for k in range(3)]
    for request in requests:
        engine.add(request)
    for _ in range(3):
        engine.begin_step()
        engine.end_step()
    for request in requests:
        engine.cancel(request)
    assert engine.running == 0
    assert engine.begin_step() is None
    assert engine.load().kv_use == 0
    ((first, _, _),) = run(engine, planned(60, 1)).values()
    assert first == pytest.approx(1.0)


def test_blocks_are_never_promised_twice() -> None:
    source = random.Random(1)
    cache = BlockCache(64 * 32, reuse=True)
    leases = []
    for _ in range(3000):
        if leases and source.random() < 0.5:
            lease, prefix = leases.pop(source.randrange(len(leases)))
            cache.release(lease, prefix)
        else:
            talk, blocks = source.randrange(6), source.randrange(1, 12)
            prefix = tuple(hash((talk, k)) for k in range(blocks))
            lease = cache.admit(prefix, blocks * 32 + 5, blocks * 32 + source.randrange(5, 200))
            if lease is not None:
                cache.publish(lease, prefix)
                cache.fill(lease, blocks * 32 + 5)
                leases.append((lease, prefix))
        held = {name for lease, _ in leases for name in lease.names}
        own = sum(lease.own for lease, _ in leases)
        assert len(held) + own <= 64
        assert cache.use == pytest.approx((len(held) + own) / 64)
        assert len(cache._used) + cache._filled + len(cache._idle) <= 64
    for lease, prefix in leases:
        cache.release(lease, prefix)
    assert cache.use == 0


def test_the_longest_answer_is_kept_room_for() -> None:
    cache = BlockCache(320, reuse=False)
    assert blocks_for(33) == 2
    first = cache.admit((), 60, 200)
    assert first is not None
    assert cache.admit((), 60, 120) is None
    cache.release(first, ())
    assert cache.admit((), 60, 120) is not None
