"""What a step costs is found again from steps, and from whole requests."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from toolkit.gateway.simulation import (
    ClassLoad,
    EngineModel,
    Lengths,
    StepSample,
    fit_requests,
    fit_steps,
    poisson,
    simulate,
)
from toolkit.spec.gateway import Scheduling

TRUE = EngineModel(
    step_s=0.03,
    prefill_s=0.001,
    decode_s=0.004,
    context_s=4e-6,
    slots=8,
    kv_tokens=16384,
    max_num_tokens=512,
)
BLANK = EngineModel(slots=8, kv_tokens=16384, max_num_tokens=512)


def load(factor: float) -> list[ClassLoad]:
    return [
        ClassLoad("interactive", 0.6 * factor, Lengths(120, 0.6, 500), Lengths(40, 0.6, 200), 200),
        ClassLoad("batch", 0.5 * factor, Lengths(300, 0.6, 1000), Lengths(90, 0.5, 256), 256),
    ]


def test_few_tokens_hide_behind_the_weights_and_many_hide_them() -> None:
    one, few, many, most = (TRUE.step_time(tokens, 0, 0) for tokens in (1, 8, 256, 512))
    assert few < 1.05 * one
    assert most == pytest.approx(2 * many, rel=0.05)
    assert TRUE.step_time(0, 8, 1000) == TRUE.step_time(0, 8, 0) + 1000 * TRUE.context_s


def test_steps_give_the_four_costs_through_noise() -> None:
    source = random.Random(1)
    samples = []
    for _ in range(400):
        prefill, decodes = source.choice([0, 0, 100, 512]), source.randint(0, 8)
        context = decodes * source.randint(50, 800)
        seconds = TRUE.step_time(prefill, decodes, context) * source.gauss(1, 0.03)
        samples.append(StepSample(prefill, decodes, context, seconds))
    found = fit_steps(BLANK, samples)
    assert found.step_s == pytest.approx(TRUE.step_s, rel=0.1)
    assert found.prefill_s == pytest.approx(TRUE.prefill_s, rel=0.1)
    assert found.decode_s == pytest.approx(TRUE.decode_s, rel=0.1)
    assert found.context_s == pytest.approx(TRUE.context_s, rel=0.3)
    assert found.slots == 8


def test_no_cost_is_ever_below_zero() -> None:
    samples = [StepSample(10 * k, 8 - k, 100, 0.05 - 0.001 * k) for k in range(8)]
    found = fit_steps(BLANK, samples)
    assert min(found.step_s, found.prefill_s, found.decode_s, found.context_s) >= 0


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="four"):
        fit_requests(BLANK, [])
    with pytest.raises(ValueError, match="four"):
        fit_steps(BLANK, [StepSample(1, 1, 1, 1.0)] * 3)


@pytest.mark.parametrize("seed", [1, 2])
def test_an_engine_fitted_to_requests_predicts_another_load_and_policy(seed: int) -> None:
    full = [replace(one, at=one.at + 220) for one in poisson(load(2.0), 60, seed)]
    phases = poisson(load(0.3), 200, seed) + full
    seen = simulate(phases, Scheduling(policy="fcfs", classes=CLASSES), {"a": TRUE})
    samples = [sample for one in seen.outcomes if (sample := one.sample())]
    fitted = fit_requests(BLANK, samples)
    trace = poisson(load(1.6), 300, seed + 10)
    runs = [simulate(trace, Scheduling(classes=CLASSES), {"a": each}) for each in (TRUE, fitted)]
    truth, predicted = (run.summary() for run in runs)
    for real, guess in zip(truth, predicted, strict=True):
        assert guess.ttft_s[1] == pytest.approx(real.ttft_s[1], rel=0.2)
        assert guess.itl_s[0] == pytest.approx(real.itl_s[0], rel=0.05)
    assert runs[1].tokens_per_s(30, 300) == pytest.approx(runs[0].tokens_per_s(30, 300), rel=0.03)


def test_a_backlog_that_waited_in_the_gateway_tells_how_fast_the_engine_is_when_full() -> None:
    fcfs = Scheduling(policy="fcfs", classes=CLASSES)
    waiting = poisson(load(4.0), 60, 1)[: 6 * TRUE.slots]
    backlog = [replace(one, at=400 + 0.005 * k) for k, one in enumerate(waiting)]
    seen = simulate([*poisson(load(0.3), 200, 1), *backlog], fcfs, {"a": TRUE})
    samples = [
        replace(sample, sent_at=one.arrived)  # as its client saw it
        for one in seen.outcomes
        if (sample := one.sample())
    ]
    fitted = fit_requests(BLANK, samples)
    trace = poisson(load(1.6), 120, 2)
    for policy in (fcfs, Scheduling(classes=CLASSES)):
        real, told = (simulate(trace, policy, {"a": each}) for each in (TRUE, fitted))
        assert told.tokens_per_s(30, 120) == pytest.approx(real.tokens_per_s(30, 120), rel=0.03)
        for was, guess in zip(real.summary(30), told.summary(30), strict=True):
            assert guess.ttft_s[1] == pytest.approx(was.ttft_s[1], rel=0.1)


CLASSES = Scheduling().classes
