"""Estimates of times and loads: hand-computed cases, and what must hold for every deployment."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_shapes import LLAMA_1B, LLAMA_8B, LLAMA_70B, MIXTRAL

from toolkit.capacity.calibration import Observation, calibrate, residuals
from toolkit.capacity.efficiency import CPU_ENGINE, TENSORRT_LLM, Efficiency, read_efficiency
from toolkit.capacity.roofline import Device, Step, Work, prompt_step, step_seconds
from toolkit.capacity.serving import (
    Replica,
    at_rate,
    best_within,
    decoding_tpot,
    reuse_gain,
    speculation_gain,
    usable_slots,
    with_running,
    with_users,
)
from toolkit.capacity.traffic import Traffic, acceptance_of, expected_tokens
from toolkit.capacity.work import gpu_device, gpu_work, host_work
from toolkit.errors import SpecError, UnsupportedError
from toolkit.quantize.check import check
from toolkit.spec.gpus import find_gpu
from toolkit.spec.models import Parallelism, Quantization

PERFECT = Efficiency(1, 1, 1, 0, 0, 0, 0)
PLAIN = check(LLAMA_8B, Quantization())
FP8 = check(LLAMA_8B, Quantization(weights="fp8", kv_cache="fp8"))
CHAT = Traffic(1000, 250)


def replica(gpu: str = "H100", tensor: int = 1, **more: int) -> Replica:
    work = gpu_work(LLAMA_8B, FP8, Parallelism(tensor=tensor))
    return Replica(work, gpu_device(find_gpu(gpu), FP8), TENSORRT_LLM, **more)


def test_a_lone_token_takes_the_weights_over_the_bandwidth() -> None:
    work = gpu_work(LLAMA_8B, PLAIN, Parallelism())
    device = gpu_device(find_gpu("H100"), PLAIN)
    # All but the table of embeddings: 7.505e9 weights of 2 bytes, at 3.35 TB/s.
    read = 2 * (LLAMA_8B.parameters - 128256 * 4096)
    assert step_seconds(work, device, PERFECT, Step(decodes=1)) == pytest.approx(
        read / 3350e9, rel=1e-3
    )


def test_a_long_prompt_takes_two_operations_a_weight_and_token() -> None:
    work = gpu_work(LLAMA_8B, PLAIN, Parallelism())
    device = gpu_device(find_gpu("H100"), PLAIN)
    layers = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    pairs = 4 * 32 * 32 * 128 * 2048 * 2049 / 2
    seconds = (2 * layers * 2048 + 2 * 4096 * 128256 + pairs) / 989e12
    assert step_seconds(work, device, PERFECT, prompt_step(2048)) == pytest.approx(seconds)


def test_formats_compute_at_their_own_rate() -> None:
    gpu, nvfp4 = find_gpu("B200"), check(LLAMA_8B, Quantization(weights="nvfp4"))
    awq = check(LLAMA_8B, Quantization(weights="int4_awq"))
    rates = [gpu_device(gpu, resolved).linear_rate for resolved in (PLAIN, FP8, nvfp4, awq)]
    assert rates == [2250e12, 4500e12, 9000e12, 2250e12]
    assert gpu_device(find_gpu("A100-80"), FP8).linear_rate == 312e12


def test_tensor_parallelism_divides_the_work_and_pays_for_the_link() -> None:
    one, four = (gpu_work(LLAMA_70B, PLAIN, Parallelism(tensor=n)) for n in (1, 4))
    assert four.token_ops == one.token_ops / 4
    assert four.collectives == 2 * LLAMA_70B.num_layers
    assert one.collectives == one.reduced_bytes == 0
    # A ring of four sends 6/4 of each of the 160 reduced activations.
    assert four.reduced_bytes == 160 * 8192 * 2 * 1.5
    fast, slow = (gpu_device(find_gpu(name), PLAIN) for name in ("H100", "H100-PCIe"))
    step = prompt_step(4096)
    alike = replace(slow, bandwidth=fast.bandwidth, linear_rate=fast.linear_rate)
    alike = replace(alike, attention_rate=fast.attention_rate)
    assert step_seconds(four, alike, TENSORRT_LLM, step) > 1.5 * step_seconds(
        four, fast, TENSORRT_LLM, step
    )


def test_a_mixture_of_experts_is_not_estimated() -> None:
    with pytest.raises(UnsupportedError):
        gpu_work(MIXTRAL, check(MIXTRAL, Quantization()), Parallelism())


@pytest.mark.parametrize("drafts", [1, 3, 7])
@pytest.mark.parametrize("acceptance", [0.0, 0.4, 0.8, 1.0])
def test_expected_tokens_are_what_drawing_them_gives(drafts: int, acceptance: float) -> None:
    dice = random.Random(drafts)
    total = 0
    for _ in range(20_000):
        kept = 0
        while kept < drafts and dice.random() < acceptance:
            kept += 1
        total += kept + 1
    assert expected_tokens(acceptance, drafts) == pytest.approx(total / 20_000, rel=0.02)


def test_speculation_gains_for_few_and_loses_for_many() -> None:
    drafted = Traffic(1000, 250, acceptance=0.7, drafts=4)
    # A lone request's step reads the weights once, whatever it checks.
    assert speculation_gain(replica(), drafted, 1) == pytest.approx(expected_tokens(0.7, 4))
    assert 1.5 < speculation_gain(replica(), drafted, 32) < 0.99 * expected_tokens(0.7, 4)
    assert speculation_gain(replica(), replace(drafted, acceptance=0.1), 256) < 1
    model = replace(
        replica(), draft=gpu_work(LLAMA_1B, check(LLAMA_1B, Quantization()), Parallelism())
    )
    assert speculation_gain(model, drafted, 1) < speculation_gain(replica(), drafted, 1)


def test_reuse_brings_the_first_token_forward() -> None:
    long = Traffic(8000, 250, hit_rate=0.9)
    assert 3 < reuse_gain(replica(), long) < 10
    assert reuse_gain(replica(), replace(long, hit_rate=0.0)) == 1
    assert (
        with_running(replica(), long, 8).ttft_s
        < with_running(replica(), replace(long, hit_rate=0.0), 8).ttft_s
    )


@settings(max_examples=60, deadline=None)
@given(
    gpu=st.sampled_from(["A10", "L4", "H100", "B200", "RTX 5090"]),
    tensor=st.sampled_from([1, 2, 4]),
    prompt=st.integers(1, 20_000),
    output=st.integers(1, 4000),
    running=st.floats(0.1, 500),
)
def test_more_requests_mean_more_tokens_and_none_of_them_sooner(
    gpu: str, tensor: int, prompt: int, output: int, running: float
) -> None:
    traffic, one = Traffic(prompt, output), replica(gpu, tensor)
    few, many = (with_running(one, traffic, n, arriving=True) for n in (running, 2 * running))
    assert many.tpot_s >= few.tpot_s
    assert many.output_tokens_per_s >= few.output_tokens_per_s * 0.999
    assert many.ttft_s >= few.ttft_s
    # Little's law ties the three together.
    assert few.rate * output * few.tpot_s == pytest.approx(running)


@settings(max_examples=40, deadline=None)
@given(users=st.floats(0.5, 200))
def test_users_wait_for_their_first_token_or_have_a_request_running(users: float) -> None:
    made = with_users(replica(), CHAT, users)
    assert made.running + made.rate * made.ttft_s == pytest.approx(users, rel=1e-3)
    assert with_users(replica(max_batch=8), CHAT, users).running <= 8


def test_a_lone_user_meets_nobody_s_prompt() -> None:
    model = replica()
    made = with_users(model, CHAT, 1)
    own = step_seconds(model.work, model.device, model.factors, prompt_step(1000))
    assert made.tpot_s == pytest.approx(decoding_tpot(model, CHAT, 1))
    assert made.ttft_s == pytest.approx(own)
    assert made.output_tokens_per_s == pytest.approx(250 / (own + 250 * made.tpot_s))


@settings(max_examples=40, deadline=None)
@given(rate=st.floats(0.05, 60))
def test_a_rate_is_kept_or_known_to_be_too_much(rate: float) -> None:
    one = replica(kv_tokens=200_000)
    made = at_rate(one, CHAT, rate)
    if made is None:
        assert with_running(one, CHAT, usable_slots(one, CHAT)).rate < rate * 1.001
    else:
        assert made.rate == pytest.approx(rate, rel=1e-3)
        assert made.running <= usable_slots(one, CHAT)


def test_slots_leave_room_for_chance() -> None:
    one = replica(kv_tokens=125_000, max_batch=64)
    assert one.slots(CHAT) == 64
    usable = usable_slots(one, CHAT)
    assert usable + 2 * math.sqrt(usable) == pytest.approx(64)


def test_the_best_load_is_just_within_the_targets() -> None:
    one = replica(kv_tokens=400_000)
    best = best_within(one, CHAT, ttft_s=0.5, tpot_s=0.02)
    assert best is not None
    assert best.tpot_s <= 0.02
    assert best.ttft_s <= 0.5
    more = with_running(one, CHAT, best.running * 1.01)
    assert more.tpot_s > 0.02 or more.ttft_s > 0.5
    assert best_within(one, CHAT, ttft_s=0.5, tpot_s=1e-4) is None
    assert best_within(replica(kv_tokens=100), CHAT, ttft_s=9, tpot_s=9) is None


def test_calibration_finds_the_factors_that_made_the_times() -> None:
    truth = Efficiency(0.7, 0.4, 1, 4e-3, 5e-5, 1e-3, 0)
    arch = replace(LLAMA_1B, hidden_size=576, num_layers=30, num_heads=9, num_kv_heads=3)
    arch = replace(arch, intermediate_size=1536, vocab_size=49152)
    resolved = check(arch, Quantization(weights="int8_sq"), runtime="openvino")
    device = Device("cpu", 20e9, 150e9, 150e9)
    real = Replica(host_work(arch, resolved, 4), device, truth)
    traffic = Traffic(100, 100)
    seen = [
        Observation(str(n), traffic, n, with_running(real, traffic, n).tpot_s)
        for n in (2, 4, 16, 24)
    ]
    made = calibrate(replace(real, factors=CPU_ENGINE), seen, source="a test")
    assert made.factors.source == "a test"
    assert made.worst < 0.03
    for users in (1, 8, 32):
        told = with_running(replace(real, factors=made.factors), traffic, users)
        assert told.tpot_s == pytest.approx(with_running(real, traffic, users).tpot_s, rel=0.1)


def test_a_step_with_a_prompt_is_told_from_one_without() -> None:
    model = replica()
    one, lone = (
        step_seconds(model.work, model.device, model.factors, step)
        for step in (
            Step(5, 1125, 1000, prompt_step(1000).prompt_pairs, prompt_rows=1),
            Step(5, 1125),
        )
    )
    # Five answers of 250 tokens: a prompt in one step of fifty.
    made = with_running(model, CHAT, 5, arriving=True)
    assert made.tpot_s == pytest.approx(0.98 * lone + 0.02 * one)
    # Of five that run, each meets the prompts of four.
    assert with_running(model, CHAT, 5).tpot_s == pytest.approx(0.984 * lone + 0.016 * one)


def test_drafting_pauses_above_its_limit() -> None:
    drafted = Traffic(1000, 250, acceptance=0.7, drafts=4)
    free, limited = replica(), replica(most_drafting=8)
    assert with_running(limited, drafted, 8) == with_running(free, drafted, 8)
    assert with_running(limited, drafted, 9) == with_running(free, CHAT, 9)
    assert decoding_tpot(limited, drafted, 9) == decoding_tpot(free, CHAT, 9)
    assert speculation_gain(limited, drafted, 9) == 1
    assert speculation_gain(limited, drafted, 8) > 1


def test_tokens_of_requests_that_began_together_hold_no_prompts() -> None:
    made = replica()
    step = Step(decodes=32, context=CHAT.prompt_tokens + CHAT.output_tokens / 2)
    alone = step_seconds(made.work, made.device, made.factors, step)
    assert decoding_tpot(made, CHAT, 32) == pytest.approx(alone)
    assert decoding_tpot(made, CHAT, 32) < with_running(made, CHAT, 32).tpot_s
    (steady, together) = (
        residuals(made, [Observation("", CHAT, 32, alone, together=how)])[0]
        for how in (False, True)
    )
    assert together.error == pytest.approx(0)
    assert steady.error > 0


MEASURED_MS = {1: 22.1, 2: 22.5, 4: 21.3, 8: 25.3, 16: 32.5, 24: 44.4, 32: 59.8}
"""Medians of a step of the embedded engine by requests in it: SmolLM2-135M in float32, prompts of
64 tokens, AMD EPYC with 2 cores, 2026-11-24 (benchmarks/plan_against_engine.py's method)."""


def test_the_cpu_engine_is_predicted_at_loads_that_were_not_calibrated_on() -> None:
    arch = replace(
        LLAMA_1B,
        hidden_size=576,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        intermediate_size=1536,
        vocab_size=49152,
    )
    work = host_work(arch, check(arch, Quantization(), runtime="openvino"), 4)
    guessed = Replica(work, Device("cpu", 25e9, 150e9, 150e9), CPU_ENGINE)
    traffic = Traffic(64, 16)
    seen = [
        Observation(str(n), traffic, n, MEASURED_MS[n] / 1000, together=True)
        for n in (2, 4, 16, 24)
    ]
    made = replace(guessed, factors=calibrate(guessed, seen, source="").factors)
    for users in (1, 8, 32):
        told = decoding_tpot(made, traffic, users)
        assert told == pytest.approx(MEASURED_MS[users] / 1000, rel=0.1)


def test_calibration_needs_a_measurement() -> None:
    with pytest.raises(SpecError):
        calibrate(replica(), [], source="")


def test_factors_survive_a_file_and_nonsense_does_not() -> None:
    assert read_efficiency(TENSORRT_LLM.as_json(), "f") == TENSORRT_LLM
    for broken in (
        [],
        {},
        {**TENSORRT_LLM.as_json(), "bandwidth": 0},
        {**TENSORRT_LLM.as_json(), "step_s": -1},
        {**TENSORRT_LLM.as_json(), "row_s": "much"},
    ):
        with pytest.raises(SpecError):
            read_efficiency(broken, "f")


def test_a_step_of_nothing_but_weights_is_a_work_s_least() -> None:
    work = Work(1, 100.0, 1.0, 1.0, 1.0, 1.0)
    device = Device("d", 10.0, 10.0, 10.0)
    assert step_seconds(work, device, PERFECT, Step()) == 10
    assert step_seconds(work, device, replace(PERFECT, bandwidth=0.5), Step()) == 20


@pytest.mark.parametrize("drafts", [1, 4, 8])
@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.7, 1.0])
def test_acceptance_follows_from_the_share_that_was_accepted(
    drafts: int, acceptance: float
) -> None:
    share = (expected_tokens(acceptance, drafts) - 1) / drafts
    assert acceptance_of(share, drafts) == pytest.approx(acceptance, abs=1e-6)


def test_a_lone_request_meets_no_prompt_and_arrivals_meet_some() -> None:
    """Its own prompt is over before its first token, so that no later one waits for it."""
    long = Traffic(4000, 50)
    alone = with_running(replica(), long, 1)
    assert alone.tpot_s == decoding_tpot(replica(), long, 1)
    assert alone.ttft_s == pytest.approx(with_users(replica(), long, 1).ttft_s)
    at_random = with_running(replica(), long, 1, arriving=True)
    assert at_random.tpot_s > 1.1 * alone.tpot_s
    # The prompt takes its time all the same.
    assert alone.rate == at_random.rate < 1 / (50 * alone.tpot_s)
