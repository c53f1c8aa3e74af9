"""The promises about latency, throughput and reuse, on benchmarks/gateway_simulation.py's loads."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from toolkit.gateway.simulation import ClassLoad, EngineModel, Lengths, poisson, simulate
from toolkit.spec.gateway import Scheduling

BENCHMARK = Path(__file__).parents[3] / "benchmarks/gateway_simulation.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gateway_simulation", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_eight_overloaded_gpus_answer_interactive_requests_at_once(benchmark: ModuleType) -> None:
    limit = 8.0
    fcfs, aware = (
        benchmark.overloaded(policy, seconds=24.0, seed=1, batch_max_wait_s=limit)
        for policy in ("fcfs", "latency_aware")
    )
    before, after = ({s.request_class: s for s in run.summary(since=8.0)} for run in (fcfs, aware))
    assert before["interactive"].ttft_s[1] > 3.0  # or there was no overload
    assert after["interactive"].ttft_s[1] <= before["interactive"].ttft_s[1] / 5
    assert after["interactive"].ttft_s[1] <= 0.5
    assert set(after["interactive"].ended) == {"done"}
    assert aware.tokens_per_s(8, 24) >= 0.97 * fcfs.tokens_per_s(8, 24)
    assert after["batch"].longest_queue_s <= limit
    assert after["batch"].ended["done"] > 300
    assert after["batch"].ended["too_late"] > 100


def test_who_is_taken_is_served_in_time_and_the_allowed_wait_is_used(benchmark: ModuleType) -> None:
    limit = 8.0
    run = benchmark.overloaded("latency_aware", seconds=50.0, seed=1, batch_max_wait_s=limit)
    batch = next(s for s in run.summary(since=20.0) if s.request_class == "batch")
    assert batch.ended["too_late"] > 0.2 * batch.requests
    assert batch.ended.get("overdue", 0) <= 0.02 * batch.ended["done"]
    assert batch.queue_s[1] >= 0.7 * limit


def test_conversations_find_their_cache_again(benchmark: ModuleType) -> None:
    loaded, affine = (
        benchmark.talking(affinity=affinity, seconds=100.0, seed=1) for affinity in (False, True)
    )
    assert affine.hit_rate(since=25.0) >= 1.5 * loaded.hit_rate(since=25.0)
    assert affine.summary(25.0)[0].ttft_s[1] <= loaded.summary(25.0)[0].ttft_s[1]


@pytest.mark.parametrize("priors", [True, False])
def test_a_small_engine_keeps_its_throughput_too(priors: bool) -> None:
    """Eight slots, where one that stands idle is an eighth of everything."""
    engine = EngineModel(0.03, 0.001, 0.004, 2e-6, slots=8, kv_tokens=16384, max_num_tokens=512)
    load = [
        ClassLoad("interactive", 0.7, Lengths(120, 0.5, 500), Lengths(40, 0.6, 200), 200),
        ClassLoad("batch", 0.9, Lengths(250, 0.5, 1000), Lengths(90, 0.4, 256), 256),
    ]
    trace = poisson(load, 240, 1)
    fcfs, aware = (
        simulate(trace, Scheduling.model_validate({"policy": policy}), {"a": engine}, priors=priors)
        for policy in ("fcfs", "latency_aware")
    )
    assert aware.tokens_per_s(30, 240) >= 0.97 * fcfs.tokens_per_s(30, 240)
    interactive = [
        next(s for s in run.summary(30) if s.request_class == "interactive")
        for run in (fcfs, aware)
    ]
    assert interactive[1].ttft_s[1] <= interactive[0].ttft_s[1] / 5
    ends = [max(one.ended_at or 0.0 for one in run.outcomes) for run in (fcfs, aware)]
    assert ends[1] <= 1.03 * ends[0]
