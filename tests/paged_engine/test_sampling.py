"""Sampling follows the distribution asked for, and depends on seed and position alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from llm_serving.engine_api import Sampling
from paged_engine.sampler import choose, is_plain_greedy, log_probability, uniform

LOGITS = np.log(np.array([0.05, 0.4, 0.3, 0.2, 0.05], np.float32))
DRAWS = 4000


def frequencies(sampling: Sampling, logits: np.ndarray = LOGITS) -> np.ndarray:
    """Share of each token over many seeds."""
    drawn = [choose(logits, sampling, (), [], seed) for seed in range(DRAWS)]
    return np.bincount(drawn, minlength=len(logits)) / DRAWS


def expect(got: np.ndarray, probabilities: list[float]) -> None:
    wanted = np.array(probabilities) / sum(probabilities)
    spread = 5 * np.sqrt(wanted * (1 - wanted) / DRAWS) + 1e-9
    assert np.all(np.abs(got - wanted) <= spread), (got, wanted)


def test_plain_sampling_follows_the_probabilities() -> None:
    expect(frequencies(Sampling(1, temperature=1.0)), [0.05, 0.4, 0.3, 0.2, 0.05])


def test_temperature_sharpens() -> None:
    squared = [p * p for p in (0.05, 0.4, 0.3, 0.2, 0.05)]
    expect(frequencies(Sampling(1, temperature=0.5)), squared)


def test_top_k_keeps_the_most_likely() -> None:
    expect(frequencies(Sampling(1, temperature=1.0, top_k=2)), [0, 0.4, 0.3, 0, 0])


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    expect(frequencies(Sampling(1, temperature=1.0, top_p=0.65)), [0, 0.4, 0.3, 0, 0])
    expect(frequencies(Sampling(1, temperature=1.0, top_p=0.3)), [0, 1, 0, 0, 0])


def test_top_p_counts_within_top_k() -> None:
    # Of the two kept by top_k the first has 4/7.
    expect(frequencies(Sampling(1, temperature=1.0, top_k=2, top_p=0.5)), [0, 1, 0, 0, 0])


def test_top_p_reaches_past_the_first_guess_of_candidates() -> None:
    flat = np.zeros(5000, np.float32)
    sampling = Sampling(1, temperature=1.0, top_p=0.9)
    drawn = {choose(flat, sampling, (), [], seed) for seed in range(600)}
    assert max(drawn) > 4000
    assert all(token < 4501 for token in drawn), "equal logits are kept by index"


def test_seed_and_position_decide() -> None:
    sampling = Sampling(8, temperature=1.0)
    again = [choose(LOGITS, sampling, (), [0] * n, 7) for n in range(50)]
    assert again == [choose(LOGITS, sampling, (1, 2), [0] * n, 7) for n in range(50)]
    assert again != [choose(LOGITS, sampling, (), [0] * n, 8) for n in range(50)]
    assert len(set(again)) > 1


def test_uniform_numbers_are_spread_and_independent_of_each_other() -> None:
    numbers = np.array([[uniform(seed, position) for position in range(200)] for seed in range(50)])
    assert 0 <= numbers.min() < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.05


def test_repetition_penalty_counts_prompt_and_output() -> None:
    logits = np.array([2.0, 1.9, -1.0, -1.1], np.float32)
    assert choose(logits, Sampling(1, repetition_penalty=1.5), (0,), [], 0) == 1
    assert choose(logits, Sampling(1, repetition_penalty=1.5), (), [0], 0) == 1
    both = np.array([-1.0, -1.1, -9.0], np.float32)
    assert choose(both, Sampling(1, repetition_penalty=1.5), (0,), [], 0) == 1


def test_presence_and_frequency_penalties_count_prompt_and_output() -> None:
    """As TensorRT-LLM counts them where no prompt_ignore_length is given."""
    logits = np.array([2.0, 1.5, 0.0], np.float32)
    presence = Sampling(1, presence_penalty=0.6)
    frequency = Sampling(1, frequency_penalty=0.2)
    assert choose(logits, presence, (0,), [], 0) == 1
    assert choose(logits, presence, (), [0], 0) == 1
    assert choose(logits, frequency, (0,), [0], 0) == 0
    assert choose(logits, frequency, (0, 0), [0], 0) == 1


def test_penalties_are_taken_off_what_temperature_has_scaled() -> None:
    sampling = Sampling(1, temperature=0.5, presence_penalty=2.0)
    logits = np.array([1.0, 0.0], np.float32)
    expect(
        np.bincount([choose(logits, sampling, (0,), [], seed) for seed in range(DRAWS)]) / DRAWS,
        [1.0, 1.0],
    )


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-7])
@pytest.mark.parametrize("limits", [{}, {"top_k": 3}, {"top_p": 0.9}])
@pytest.mark.filterwarnings("error")
def test_next_to_no_temperature_is_greedy(temperature: float, limits: dict[str, Any]) -> None:
    sampling = Sampling(1, temperature=temperature, **limits)
    logits = np.array([-30.0, 40.0, 39.9, -50.0], np.float32)
    assert {choose(logits, sampling, (), [], seed) for seed in range(50)} == {1}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "wish",
    [{"presence_penalty": -3e38}, {"frequency_penalty": -3e38}, {"repetition_penalty": 1e-45}],
)
@pytest.mark.filterwarnings("error")
def test_the_greatest_penalties_still_choose(temperature: float, wish: dict[str, float]) -> None:
    sampling = Sampling(1, temperature=temperature, **wish)  # type: ignore[arg-type]
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    assert {choose(logits, sampling, (0,), [0], seed) for seed in range(50)} == {0}


def test_bad_words_are_banned_only_where_they_would_complete() -> None:
    assert choose(LOGITS, Sampling(1, bad_words=((1,),)), (), [], 0) == 2
    pair = Sampling(1, bad_words=((4, 1),))
    assert choose(LOGITS, pair, (), [3], 0) == 1
    assert choose(LOGITS, pair, (), [4], 0) == 2
    assert choose(LOGITS, pair, (4,), [], 0) == 2
    triple = Sampling(1, bad_words=((3, 4, 1),))
    assert choose(LOGITS, triple, (3,), [4], 0) == 2
    assert choose(LOGITS, triple, (), [4], 0) == 1


def test_min_tokens_holds_the_end_back() -> None:
    sampling = Sampling(9, min_tokens=2, stop_token_ids=(1,))
    assert choose(LOGITS, sampling, (), [0], 0) == 2
    assert choose(LOGITS, sampling, (), [0, 0], 0) == 1
    assert not is_plain_greedy(sampling, 1, best=1)
    assert is_plain_greedy(sampling, 1, best=2)
    assert is_plain_greedy(sampling, 2, best=1)


def test_logits_are_left_as_they_were() -> None:
    before = LOGITS.copy()
    choose(LOGITS, Sampling(1, bad_words=((1,),), temperature=1.0, top_p=0.5), (1,), [2], 0)
    np.testing.assert_array_equal(LOGITS, before)


@pytest.mark.parametrize("shift", [0.0, 300.0, -300.0])
def test_log_probability_is_that_of_the_softmax(shift: float) -> None:
    assert log_probability(LOGITS + np.float32(shift), 2) == pytest.approx(math.log(0.3), abs=1e-4)
