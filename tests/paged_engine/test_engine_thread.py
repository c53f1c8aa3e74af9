"""The engine's thread: submission, refusal, cancellation, deadlines, failure, shutdown."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hashing_runner import HashingRunner, continuation
from llm_serving.engine_api import (
    GenerationRequest,
    QueueFullError,
    RequestRefusedError,
    Sampling,
    TokenChunk,
)
from paged_engine.blocks import BlockPool
from paged_engine.config import EngineConfig
from paged_engine.engine import PagedEngine
from paged_engine.proposers import NoProposer
from paged_engine.scheduler import Scheduler

PATIENCE = 20.0


class GatedRunner(HashingRunner):
    """A stand-in whose steps can be held, and made to fail."""

    def __init__(self, blocks: int, tokens_per_block: int) -> None:
        super().__init__(blocks, tokens_per_block)
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def run(self, rows: Any) -> Any:
        self.gate.wait(PATIENCE)
        if self.failure:
            raise self.failure
        return super().run(rows)


class Bench:
    """An engine over the stand-in, and what it handed out."""

    def __init__(self, *, started: bool = True, **overrides: Any) -> None:
        settings = {
            "max_batch_size": 2,
            "max_input_len": 20,
            "max_seq_len": 32,
            "max_num_tokens": 16,
            "max_queue_size": 3,
            "tokens_per_block": 4,
        }
        config = EngineConfig(**{**settings, **overrides})  # type: ignore[arg-type]
        self.runner = GatedRunner(32, 4)
        scheduler = Scheduler(config, BlockPool(32, 4, reuse=True))
        self.engine = PagedEngine(config, scheduler, self.runner, NoProposer())  # type: ignore[arg-type]
        self.chunks: dict[int, queue.Queue[TokenChunk]] = {n: queue.Queue() for n in range(20)}
        if started:
            self.engine.start(
                lambda chunks: [self.chunks[c.request_id].put(c) for c in chunks] and None
            )

    def submit(
        self, number: int, prompt: tuple[int, ...] = (1, 2), out: int = 5, **more: Any
    ) -> None:
        sampling = Sampling(max_tokens=out)
        self.engine.submit(GenerationRequest(number, prompt, sampling, **more))

    def answer(self, number: int) -> tuple[list[int], TokenChunk]:
        tokens: list[int] = []
        while True:
            chunk = self.chunks[number].get(timeout=PATIENCE)
            tokens += chunk.tokens
            if chunk.finish:
                return tokens, chunk


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.runner.gate.set()
    made.engine.close()


def wait_until(condition: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_requests_are_answered_with_usage(bench: Bench) -> None:
    bench.submit(0, (1, 2, 3), 4)
    tokens, last = bench.answer(0)
    assert tokens == continuation((1, 2, 3), 4)
    assert last.finish == "length"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.output_tokens) == (3, 4)
    usage = last.usage
    assert usage.arrived <= usage.first_scheduled <= usage.first_token <= usage.last_token


def test_the_engine_wakes_again_after_it_was_idle(bench: Bench) -> None:
    for number in range(4):
        bench.submit(number)
        assert bench.answer(number)[0] == continuation((1, 2), 5)


@pytest.mark.parametrize(
    ("prompt", "out", "names"),
    [((), 1, "prompt"), ((1,) * 21, 1, "max_input_len"), ((1,), 0, "max_tokens")],
)
def test_misfits_are_refused(bench: Bench, prompt: tuple[int, ...], out: int, names: str) -> None:
    with pytest.raises(RequestRefusedError, match=names):
        bench.submit(0, prompt, out)


def test_a_full_queue_is_refused_and_then_takes_requests_again(bench: Bench) -> None:
    bench.runner.gate.clear()
    for number in range(2 + 3):
        bench.submit(number)
    with pytest.raises(QueueFullError, match="max_queue_size"):
        bench.submit(9)
    bench.runner.gate.set()
    for number in range(5):
        bench.answer(number)
    bench.submit(9)
    assert bench.answer(9)[1].finish == "length"


def test_cancelling_frees_the_slot_of_running_and_waiting_requests(bench: Bench) -> None:
    bench.runner.gate.clear()
    for number in range(4):
        bench.submit(number, out=30)
    wait_until(lambda: bench.engine.stats().running == 2)
    for number in (0, 3):
        bench.engine.cancel(number)
    bench.runner.gate.set()
    assert bench.answer(0)[1].finish == "cancelled"
    assert bench.answer(3)[0] == []
    assert [bench.answer(n)[1].finish for n in (1, 2)] == ["length"] * 2
    wait_until(lambda: bench.engine.stats().running == 0)
    assert bench.engine.stats().blocks_used == 0


def test_cancelling_what_has_ended_does_not_touch_a_later_request(bench: Bench) -> None:
    bench.submit(0)
    bench.answer(0)
    bench.engine.cancel(0)
    bench.submit(1)
    assert bench.answer(1)[1].finish == "length"


def test_a_cancellation_right_after_its_request_is_not_lost() -> None:
    """Both arrive when the engine has looked for requests and not yet for cancellations."""
    bench = Bench(started=False)
    bench.submit(0, out=30)
    assert bench.engine._wait_for_work()
    bench.submit(1, out=30)
    bench.engine.cancel(1)
    ended = bench.engine._end_overdue()
    assert bench.engine._wait_for_work()
    ended += bench.engine._end_overdue()
    assert [(chunk.request_id, chunk.finish) for chunk in ended] == [(1, "cancelled")]


def test_an_idle_engine_reports_nothing_at_work(bench: Bench) -> None:
    bench.submit(0)
    bench.answer(0)
    wait_until(lambda: bench.engine.stats().running == 0)
    stats = bench.engine.stats()
    work = (stats.context_requests, stats.context_tokens, stats.generation_requests)
    assert work == (0, 0, 0)


def test_a_deadline_ends_a_request(bench: Bench) -> None:
    bench.runner.gate.clear()
    bench.submit(0, out=30, deadline=time.monotonic() + 0.01)
    bench.submit(1, out=3)
    time.sleep(0.02)
    bench.runner.gate.set()
    assert bench.answer(0)[1].finish == "deadline"
    assert bench.answer(1)[1].finish == "length"


def test_a_deadline_that_is_far_ends_nothing(bench: Bench) -> None:
    bench.submit(0, deadline=time.monotonic() + 1000)
    assert bench.answer(0)[1].finish == "length"


def test_the_longest_prompt_fits_and_a_sequence_ends_at_its_limit(bench: Bench) -> None:
    bench.submit(0, tuple(range(20)), 1000)
    tokens, last = bench.answer(0)
    assert len(tokens) == 32 - 20
    assert last.finish == "length"


def test_what_the_pool_can_never_hold_is_refused() -> None:
    bench = Bench(started=False, max_seq_len=1000)
    bench.submit(0, out=126)
    with pytest.raises(RequestRefusedError, match=r"need 33 KV blocks.*has 32"):
        bench.submit(1, out=127)


def test_an_idle_engine_remembers_no_cancellations(bench: Bench) -> None:
    bench.engine.cancel(5)
    wait_until(lambda: not bench.engine._cancelled)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failing_step_answers_everybody_and_refuses_more(bench: Bench) -> None:
    bench.runner.gate.clear()
    for number in range(3):
        bench.submit(number)
    bench.runner.failure = RuntimeError("no memory")
    bench.runner.gate.set()
    for number in range(3):
        _, last = bench.answer(number)
        assert last.finish == "error"
        assert "no memory" in last.error
    wait_until(lambda: not thread_alive(bench.engine))
    with pytest.raises(QueueFullError):
        bench.submit(4)


def thread_alive(engine: PagedEngine) -> bool:
    thread = engine._thread
    return thread is not None and thread.is_alive()


def test_closing_answers_what_still_runs() -> None:
    bench = Bench()
    bench.runner.gate.clear()
    bench.submit(0, out=30)
    closing = threading.Thread(target=bench.engine.close)
    closing.start()
    bench.runner.gate.set()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert bench.answer(0)[1].finish in ("error", "length")


def test_stats_count_the_cache_and_the_queue(bench: Bench) -> None:
    bench.submit(0, tuple(range(9)), 2)
    bench.answer(0)
    bench.submit(1, tuple(range(9)), 2)
    bench.answer(1)
    stats = bench.engine.stats()
    assert stats.blocks_max == stats.blocks_free == 32
    assert (stats.blocks_reused_total, stats.blocks_looked_up_total) == (2, 6)
    assert stats.tokens_per_block == 4
    assert stats.iterations == bench.runner.steps
