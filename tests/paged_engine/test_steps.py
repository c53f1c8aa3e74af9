"""One step at a time: what is streamed, counted, drawn and forgotten."""

from __future__ import annotations

import math

import pytest
from hashing_runner import VOCABULARY, continuation
from llm_serving.engine_api import TokenChunk
from test_any_load import LOAD, Bench, finish

CERTAIN = math.log(math.e / (math.e + VOCABULARY - 1))
"""Log probability of the stand-in's answer: its logit is 1, all others are 0."""


def chunks(bench: Bench) -> list[TokenChunk]:
    """Everything that is handed out until all is done."""
    found = []
    while bench.scheduler.everything():
        found += bench.stepper.step()
    return found


def test_the_first_token_goes_out_at_once_and_then_as_many_as_the_interval_says() -> None:
    bench = Bench({**LOAD, "stream_interval": 3})
    bench.add(0, (1, 2), 9)
    assert [len(chunk.tokens) for chunk in chunks(bench)] == [1, 3, 3, 2]


def test_times_of_first_and_last_token() -> None:
    bench = Bench(LOAD)
    sequence = bench.add(0, (1, 2), 3)
    bench.stepper.step()
    first = sequence.usage.first_token
    finish(bench)
    assert sequence.usage.first_token == first < sequence.usage.last_token


@pytest.mark.parametrize("speculation", ["none", "ngram", "draft_model"])
def test_every_token_has_its_log_probability(speculation: str) -> None:
    bench = Bench({**LOAD, "speculation": speculation})
    bench.add(0, (1, 2, 3), 8, log_probs=True)
    bench.add(1, (4, 5), 3)
    for chunk in chunks(bench):
        expected = [] if chunk.request_id else [CERTAIN] * len(chunk.tokens)
        assert chunk.log_probs == pytest.approx(expected)


@pytest.mark.parametrize(("penalty", "stays"), [(0.45, True), (0.55, False)])
def test_penalties_count_each_token_of_the_prompt_once(penalty: float, stays: bool) -> None:
    """The stand-in's answer leads by 1, and it is twice in the prompt."""
    pairs = ((a, a, b) for a in range(VOCABULARY) for b in range(VOCABULARY) if a != b)
    prompt = next(prompt for prompt in pairs if continuation(prompt, 1) == [prompt[0]])
    bench = Bench(LOAD)
    sequence = bench.add(0, prompt, 1, frequency_penalty=penalty)
    finish(bench)
    assert (sequence.tokens[-1] == prompt[0]) is stays


def test_requests_without_a_seed_differ_and_leave_nothing_behind() -> None:
    bench = Bench({**LOAD, "speculation": "ngram"})
    answers = set()
    for number in range(4):
        sequence = bench.add(number, (1, 2), 12, temperature=5.0)
        finish(bench)
        answers.add(tuple(sequence.tokens))
    assert len(answers) > 1
    assert not bench.stepper._seeds
    assert not bench.stepper._proposer._indexes  # type: ignore[attr-defined]


def test_a_seed_gives_the_same_answer_in_any_company() -> None:
    alone, together = Bench(LOAD), Bench({**LOAD, "speculation": "draft_model"})
    once = alone.add(0, (1, 2), 12, temperature=5.0, seed=7)
    finish(alone)
    again = together.add(3, (1, 2), 12, temperature=5.0, seed=7)
    for number in range(3):
        together.add(number, (number, 2), 9, temperature=5.0, seed=number)
    finish(together)
    assert again.tokens == once.tokens


def test_what_a_step_worked_on_is_counted() -> None:
    bench = Bench({**LOAD, "speculation": "draft_model"})
    first = bench.add(0, (1, 2, 3, 4), 12)
    bench.stepper.step()
    bench.add(1, (4, 5, 6, 7), 2)
    bench.stepper.step()
    counts = bench.stepper.counts
    assert (counts.context_requests, counts.context_tokens) == (1, 4)
    assert counts.generation_requests == 1
    finish(bench)
    assert (counts.context_requests, counts.context_tokens) == (0, 0)
    usage = first.usage
    assert 0 < usage.accepted_draft_tokens < usage.draft_tokens == counts.draft_tokens
    assert usage.accepted_draft_tokens == counts.accepted_draft_tokens
