"""Whatever joins, leaves or is preempted, every answer is that of the request alone."""

from __future__ import annotations

from typing import Any

import pytest
from hashing_runner import VOCABULARY, HashingRunner, continuation
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_serving.engine_api import GenerationRequest, Sampling, Usage
from paged_engine.blocks import BlockPool
from paged_engine.config import EngineConfig
from paged_engine.proposers import DraftModelProposer, NGramProposer, NoProposer
from paged_engine.scheduler import Scheduler
from paged_engine.sequence import Sequence
from paged_engine.step import Stepper

BLOCK = 4

requests = st.builds(
    lambda shared, own, out, priority: ((1, 2, 3, 4, 5, 6, 7, 8, 9)[:shared] + own, out, priority),
    st.integers(0, 9),
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=8).map(tuple),
    st.integers(1, 12),
    st.integers(0, 1),
)

loads = st.fixed_dictionaries(
    {
        "requests": st.lists(requests, min_size=1, max_size=9),
        "policy": st.sampled_from(["guaranteed_no_evict", "max_utilization", "static_batch"]),
        "speculation": st.sampled_from(["none", "ngram", "draft_model"]),
        "reuse": st.booleans(),
        "chunked": st.booleans(),
        "blocks": st.integers(8, 20),
        "batch": st.integers(1, 4),
        "extra_tokens": st.integers(0, 12),
        "stream_interval": st.integers(1, 3),
        "concurrency": st.one_of(st.none(), st.integers(1, 3)),
        "cancel": st.integers(0, 8),
        "stop": st.lists(st.integers(0, VOCABULARY - 1), max_size=1).map(tuple),
    }
)


class Bench:
    """A stepper over the stand-in model, without the engine's thread."""

    def __init__(self, load: dict[str, Any]) -> None:
        drafts = 0 if load["speculation"] == "none" else 2
        chunked = load["chunked"]
        least = load["batch"] * (drafts + 1)
        self.config = EngineConfig(
            max_batch_size=load["batch"],
            max_input_len=20,
            max_seq_len=32,
            max_num_tokens=max(least, 20 if not chunked else 1) + load["extra_tokens"],
            policy=load["policy"],
            chunked_prefill=chunked,
            stream_interval=load["stream_interval"],
            kv_cache_reuse=load["reuse"],
            tokens_per_block=BLOCK,
            speculation=load["speculation"],
            max_draft_len=drafts,
            speculation_max_concurrency=load["concurrency"],
        )
        self.runner = HashingRunner(load["blocks"], BLOCK)
        proposer: Any = NoProposer()
        if load["speculation"] == "ngram":
            proposer = NGramProposer(2)
        self.drafter = HashingRunner(load["blocks"], BLOCK, wrong_every=3)
        if load["speculation"] == "draft_model":
            proposer = DraftModelProposer(self.drafter, BLOCK)  # type: ignore[arg-type]
        self.pool = BlockPool(load["blocks"], BLOCK, reuse=load["reuse"])
        self.scheduler = Scheduler(self.config, self.pool)
        self.stepper = Stepper(
            self.scheduler,
            self.runner,  # type: ignore[arg-type]
            proposer,
            self.config.stream_interval,
        )

    def add(self, number: int, prompt: tuple[int, ...], out: int, **more: Any) -> Sequence:
        priority = more.pop("priority", 0)
        sampling = Sampling(max_tokens=out, stop_token_ids=more.pop("stop", ()), **more)
        request = GenerationRequest(number, prompt, sampling, priority)
        limit = min(len(prompt) + out, self.config.max_seq_len)
        sequence = Sequence(request, list(prompt), limit, Usage(prompt_tokens=len(prompt)))
        self.scheduler.add(sequence)
        return sequence


@settings(max_examples=300, deadline=None)
@given(loads)
def test_answers_are_those_of_each_request_alone(load: dict[str, Any]) -> None:
    bench = Bench(load)
    sequences = [
        bench.add(number, prompt, out, priority=priority, stop=load["stop"])
        for number, (prompt, out, priority) in enumerate(load["requests"])
    ]
    answers: dict[int, list[int]] = {number: [] for number in range(len(sequences))}
    finished: dict[int, str] = {}
    for step in range(2000):
        if step == load["cancel"] and not sequences[0].finish:
            sequences[0].finish = "cancelled"
            finished[0] = "cancelled"
            bench.stepper.end(sequences[0])
        if not bench.scheduler.everything():
            break
        before = bench.runner.steps
        chunks = bench.stepper.step()
        assert bench.runner.steps > before, "work waits and nothing runs"
        for chunk in chunks:
            assert chunk.request_id not in finished, "a chunk after the last one"
            answers[chunk.request_id] += chunk.tokens
            if chunk.finish:
                finished[chunk.request_id] = chunk.finish
    assert len(finished) == len(sequences)
    assert bench.runner.largest_step <= bench.config.max_num_tokens
    assert bench.pool.used == 0
    for number, (prompt, out, _) in enumerate(load["requests"]):
        expected = continuation(prompt, out, load["stop"])
        if finished[number] == "cancelled":
            expected = expected[: len(answers[number])]
        assert answers[number] == expected
        assert finished[number] in ("cancelled", "length" if len(expected) == out else "stop")


LOAD: dict[str, Any] = {
    "policy": "guaranteed_no_evict",
    "speculation": "none",
    "reuse": True,
    "chunked": True,
    "blocks": 16,
    "batch": 4,
    "extra_tokens": 12,
    "stream_interval": 1,
    "concurrency": None,
}


def finish(bench: Bench) -> list[int]:
    """Step until all is done; the number of running sequences at each step."""
    running = []
    while bench.scheduler.everything():
        bench.stepper.step()
        running.append(len(bench.scheduler.running))
    return running


def test_requests_join_and_leave_between_tokens() -> None:
    bench = Bench({**LOAD, "batch": 2})
    bench.add(0, (1, 2), 9)
    bench.add(1, (3, 4), 2)
    bench.add(2, (5, 6), 3)
    running = finish(bench)
    assert max(running) == 2
    assert bench.runner.steps < 9 + 2 + 3, "the third ran only after the first had ended"


def test_static_batching_lets_nobody_join() -> None:
    bench = Bench({**LOAD, "batch": 2, "policy": "static_batch"})
    first = bench.add(0, (1, 2), 9)
    bench.add(1, (3, 4), 2)
    late = bench.add(2, (5, 6), 3)
    finish(bench)
    assert late.usage.first_scheduled >= first.usage.last_token


def test_static_batching_lets_nobody_join_for_one_that_ended_at_once() -> None:
    bench = Bench({**LOAD, "batch": 2, "policy": "static_batch", "extra_tokens": 0})
    bench.add(0, (1,), 1)
    first = bench.add(1, tuple(range(20)), 2)
    late = bench.add(2, (5, 6), 3)
    finish(bench)
    assert late.usage.first_scheduled >= first.usage.last_token


def test_shared_prefix_is_computed_once() -> None:
    bench = Bench(LOAD)
    prompt = tuple(range(13))
    first = bench.add(0, prompt, 2)
    finish(bench)
    second = bench.add(1, prompt, 2)
    finish(bench)
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens == 12
    assert (second.usage.kv_blocks_reused, second.usage.kv_blocks_total) == (3, 4)


def test_without_reuse_nothing_is_found() -> None:
    bench = Bench({**LOAD, "reuse": False})
    for number in range(2):
        bench.add(number, tuple(range(13)), 2)
        finish(bench)
    assert bench.pool.reused == 0


def test_answers_extend_into_the_next_turn() -> None:
    bench = Bench(LOAD)
    prompt = tuple(range(6))
    bench.add(0, prompt, 7)
    finish(bench)
    turn = bench.add(1, prompt + tuple(continuation(prompt, 7)) + (1,), 2)
    finish(bench)
    assert turn.usage.cached_tokens == 12


def test_pressure_preempts_the_youngest() -> None:
    bench = Bench({**LOAD, "policy": "max_utilization", "blocks": 8})
    old = bench.add(0, (1, 2, 3), 20)
    young = bench.add(1, (4, 5, 6), 20)
    finish(bench)
    assert old.usage.preemptions == 0
    assert young.usage.preemptions > 0
    assert bench.scheduler.preemptions == young.usage.preemptions


def test_what_was_preempted_comes_back_first_and_counts_its_cache_once() -> None:
    bench = Bench({**LOAD, "policy": "max_utilization", "blocks": 8, "batch": 2})
    bench.add(0, (1, 2, 3), 20)
    young = bench.add(1, (4, 5, 6, 7, 8), 15)
    waiting = bench.add(2, (9, 9, 9), 2)
    while not young.usage.preemptions:
        bench.stepper.step()
    scheduled = young.usage.first_scheduled
    while not waiting.usage.first_scheduled:
        bench.stepper.step()
    assert bench.scheduler.running[0] is young
    finish(bench)
    assert young.usage.first_scheduled == scheduled
    assert (young.usage.cached_tokens, young.usage.kv_blocks_reused) == (0, 0)


def test_what_was_preempted_comes_back_even_where_prompts_are_never_split() -> None:
    bench = Bench(
        {**LOAD, "policy": "max_utilization", "blocks": 8, "chunked": False, "extra_tokens": 0}
    )
    old = bench.add(0, tuple(range(20)), 12)
    young = bench.add(1, (4, 5, 6), 29)
    finish(bench)
    assert young.usage.preemptions > 0
    assert old.output_length + young.output_length == 12 + 29


def test_the_guaranteed_policy_never_preempts() -> None:
    bench = Bench({**LOAD, "blocks": 8})
    bench.add(0, (1, 2, 3), 20)
    bench.add(1, (4, 5, 6), 20)
    running = finish(bench)
    assert bench.scheduler.preemptions == 0
    assert max(running) == 1


def test_a_lower_priority_number_goes_first() -> None:
    bench = Bench({**LOAD, "batch": 1})
    ordinary = bench.add(0, (1, 2), 3, priority=1)
    urgent = bench.add(1, (3, 4), 3, priority=0)
    finish(bench)
    assert urgent.usage.first_token < ordinary.usage.first_token


def test_one_that_gives_up_waiting_leaves_the_others_in_order() -> None:
    bench = Bench({**LOAD, "batch": 1})
    waiting = [bench.add(number, (1,), 2, priority=number) for number in (0, 5, 1, 6, 7, 2, 3)]
    bench.scheduler.remove(waiting[0])
    finish(bench)
    began = sorted(waiting[1:], key=lambda each: each.usage.first_scheduled)
    assert [each.request.priority for each in began] == [1, 2, 3, 5, 6, 7]


def test_long_prompts_do_not_stall_running_requests() -> None:
    bench = Bench({**LOAD, "extra_tokens": 0})
    running = bench.add(0, (1,), 12)
    bench.stepper.step()
    bench.add(1, tuple(range(20)), 1)
    for expected in range(2, 8):
        bench.stepper.step()
        assert running.output_length == expected


def test_a_prompt_that_is_never_split_is_not_overtaken_for_ever() -> None:
    """Short requests keep coming, each of which would fit beside the running ones."""
    bench = Bench({**LOAD, "chunked": False, "extra_tokens": 0})
    bench.add(0, (1,), 12)
    bench.stepper.step()
    long = bench.add(1, tuple(range(20)), 2)
    for number in range(2, 30):
        bench.add(number, (number % 7,), 6)
        bench.stepper.step()
    assert long.output_length == 2


def test_nobody_is_preempted_for_drafts() -> None:
    """The older one needs no third block until the younger one has ended and freed two."""
    bench = Bench({**LOAD, "policy": "max_utilization", "speculation": "draft_model", "blocks": 4})
    old = bench.add(0, (1, 2, 3, 4, 5, 6, 7), 5)
    young = bench.add(1, (9, 8, 7, 6, 5), 2)
    finish(bench)
    assert (old.output_length, young.output_length) == (5, 2)
    assert bench.scheduler.preemptions == 0


@pytest.mark.parametrize("method", ["ngram", "draft_model"])
def test_right_drafts_save_steps(method: str) -> None:
    plain, drafting = Bench(LOAD), Bench({**LOAD, "speculation": method})
    if method == "draft_model":
        prompt: tuple[int, ...] = (1, 2, 3)
    else:
        prompt = next(p for p in ((a, b) for a in range(23) for b in range(23)) if repeats(p))
    for bench in (plain, drafting):
        bench.add(0, prompt, 18)
        finish(bench)
    assert drafting.stepper.counts.accepted_draft_tokens > 0
    assert drafting.runner.steps == plain.runner.steps - (
        drafting.stepper.counts.accepted_draft_tokens
    )


def test_drafting_pauses_while_many_generate_and_comes_back() -> None:
    bench = Bench({**LOAD, "speculation": "draft_model", "concurrency": 1})
    long = bench.add(0, (1, 2, 3), 24)
    short = bench.add(1, (4, 5), 6)
    finish(bench)
    assert short.usage.draft_tokens == 0
    assert long.usage.accepted_draft_tokens > 0


def test_a_reused_prefix_serves_the_draft_model_too() -> None:
    bench = Bench({**LOAD, "speculation": "draft_model"})
    prompt = tuple(range(13))
    bench.add(0, prompt, 2)
    finish(bench)
    second = bench.add(1, prompt, 2)
    bench.stepper.step()
    assert second.usage.cached_tokens == 12
    assert bench.drafter.tokens == 13 + 1, "the draft computed only what it had not yet"


def test_what_the_draft_model_has_not_seen_is_computed_for_it_later() -> None:
    """Drafting pauses while two generate, so only the target knows the blocks of that time."""
    bench = Bench({**LOAD, "speculation": "draft_model", "concurrency": 1})
    prompt = tuple(range(5))
    bench.add(0, prompt, 8)
    bench.add(1, (9, 8, 7), 8)
    finish(bench)
    assert bench.drafter.tokens == 5 + 3
    turn = bench.add(2, prompt + tuple(continuation(prompt, 8)), 6)
    finish(bench)
    assert turn.usage.cached_tokens == 12
    assert turn.usage.accepted_draft_tokens > 0


def repeats(prompt: tuple[int, ...]) -> bool:
    """Whether an n-gram of the answer predicts a later token."""
    index = NGramProposer(2)
    tokens = list(prompt)
    from paged_engine.scheduler import Work

    for _ in range(17):
        tokens.append(continuation(tokens, 1)[0])
        request = GenerationRequest(0, tuple(tokens), Sampling(max_tokens=1))
        item = Work(Sequence(request, tokens, 64, Usage()), len(tokens) - 1, 1, room=2)
        index.propose([item])
        if item.drafts and item.drafts[0] == continuation(tokens, 1)[0]:
            return len(tokens) < 16
    return False
