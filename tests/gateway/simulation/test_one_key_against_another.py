"""One API key with a thousand requests does not starve another one's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.gateway.simulation import EngineModel, Outcome, Planned, Run, percentile, simulate
from toolkit.spec.gateway import Scheduling

ENGINE = EngineModel(0.02, 0.0003, 0.001, 1e-6, slots=16, kv_tokens=32768, max_num_tokens=512)
MODEST = [Planned(2.0 + k, "interactive", 100, 30, 64, owner="modest") for k in range(40)]


def greedy(owner: str) -> list[Planned]:
    return [Planned(0.0, "interactive", 300, 100, 128, owner=owner) for _ in range(1000)]


def run(trace: list[Planned]) -> Run:
    classes = {"interactive": {"weight": 8, "ttft_ms": 500, "max_queued": 10_000}}
    return simulate(trace, Scheduling.model_validate({"classes": classes}), {"a": ENGINE})


def of_modest(whole: Run) -> list[Outcome]:
    return [one for one in whole.outcomes if one.prompt_tokens == 100]


@pytest.fixture(scope="module")
def beside() -> Run:
    return run([*greedy("greedy"), *MODEST])


def test_the_other_keys_requests_wait_for_a_slot_and_no_longer(beside: Run) -> None:
    slot = percentile((one.e2e_s for one in run(greedy("x")[:64]).outcomes), 0.5)
    found = of_modest(beside)
    assert {one.ended for one in found} == {"done"}
    assert max(one.queue_s or 0.0 for one in found) < slot
    # All the while the greedy one's queue was long.
    assert max(one.queue_s or 0.0 for one in beside.outcomes) > 100


def test_without_owners_they_would_wait_behind_the_thousand() -> None:
    same = run([*greedy(""), *(replace(one, owner="") for one in MODEST)])
    assert percentile((one.queue_s for one in of_modest(same)), 0.5) > 5


def test_the_greedy_key_is_served_all_the_same(beside: Run) -> None:
    done = [one for one in beside.outcomes if one.owner == "greedy"]
    assert len(done) == 1000
    assert {one.ended for one in done} == {"done"}
