"""From chunks to responses: the real sender thread over recording response handles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_pb_utils import Handle, TritonError, TritonModelException
from llm_serving import responses
from llm_serving.engine_api import FinishReason, Sampling, TokenChunk, Usage
from llm_serving.request import ParsedRequest, Wishes
from llm_serving.sender import Sender
from llm_serving.settings import Streaming
from llm_serving.stream import Stream
from llm_serving.tokenizer import TextTokenizer

TEXT = "the quick brown fox jumps 🎉 over"


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> TextTokenizer:
    return TextTokenizer(checkpoint)


class Harness:
    """A sender and what it asked of its surroundings."""

    def __init__(
        self, tokenizer: TextTokenizer, responses_per_core: float = 0, *, started: bool = True
    ) -> None:
        self.cancelled: list[int] = []
        self.failures: list[BaseException] = []
        self.sender = Sender(
            Streaming(responses_per_core), self.cancelled.append, self.failures.append
        )
        if started:
            self.sender.start()
        self._tokenizer = tokenizer
        self.tokens = list(tokenizer.encode(TEXT, special=False))

    def open(
        self,
        request_id: int = 1,
        *,
        stream: bool = True,
        stop_words: tuple[str, ...] = (),
        log_probs: bool = False,
        perf_metrics: bool = False,
        echo: str = "",
    ) -> Handle:
        handle = Handle()
        wishes = Wishes(stream, stop_words, log_probs, perf_metrics, echo, True)
        parsed = ParsedRequest((5, 6), Sampling(max_tokens=9), wishes, 0, None)
        self.sender.open(Stream(request_id, parsed, self._tokenizer, handle, str(request_id)))
        return handle

    def steps(self, request_id: int = 1) -> None:
        for token in self.tokens:
            self.sender.put([TokenChunk(request_id, [token], [-0.25])])

    def finish(self, reason: FinishReason, request_id: int = 1, error: str = "") -> None:
        usage = Usage(
            prompt_tokens=2, cached_tokens=1, kv_blocks_total=4, kv_blocks_reused=3, arrived=1.5
        )
        self.sender.put([TokenChunk(request_id, [], [], reason, usage, error)])


@pytest.fixture
def harness(tokenizer: TextTokenizer) -> Iterator[Callable[..., Harness]]:
    made: list[Harness] = []

    def make(responses_per_core: float = 0) -> Harness:
        made.append(Harness(tokenizer, responses_per_core))
        return made[-1]

    yield make
    for each in made:
        each.sender.close()
        assert not each.failures


def test_streams_text_then_usage(harness: Callable[..., Harness]) -> None:
    run = harness()
    handle = run.open()
    run.steps()
    run.finish("length")
    run.sender.close()
    assert handle.text == TEXT
    *first, (last, final) = handle.sent
    assert final
    assert all(set(response.outputs) == {"text_output"} for response, _ in first)
    assert last.outputs["finish_reason"].tolist() == [["length"]]
    assert last.outputs["num_input_tokens"].tolist() == [[2]]
    assert last.outputs["num_output_tokens"].tolist() == [[len(run.tokens)]]
    assert "arrival_time_ns" not in last.outputs


def test_without_streaming_there_is_one_response(harness: Callable[..., Harness]) -> None:
    run = harness()
    handle = run.open(stream=False, perf_metrics=True, log_probs=True, echo="Say: ")
    run.steps()
    run.finish("stop")
    run.sender.close()
    ((response, final),) = handle.sent
    assert final
    assert handle.text == "Say: " + TEXT
    outputs = response.outputs
    assert outputs["arrival_time_ns"].tolist() == [[1_500_000_000]]
    assert outputs["kv_cache_reused_blocks"].tolist() == [[3]]
    assert outputs["kv_cache_alloc_new_blocks"].tolist() == [[1]]
    assert outputs["output_log_probs"].shape == (1, 1, len(run.tokens))
    assert outputs["output_ids"].tolist() == [[list(run.tokens)]]
    assert outputs["cum_log_probs"][0, 0] == pytest.approx(-0.25 * len(run.tokens))


def test_beyond_the_bound_tokens_are_merged(harness: Callable[..., Harness]) -> None:
    run = harness(responses_per_core=0.0001)
    handle = run.open()
    run.steps()
    run.finish("length")
    run.sender.close()
    assert handle.text == TEXT
    assert len(handle.sent) < len(run.tokens)


def test_only_streams_that_have_text_share_the_bound(tokenizer: TextTokenizer) -> None:
    """Requests that wait for a place, or for a single answer, send nothing meanwhile."""
    run = Harness(tokenizer, responses_per_core=1, started=False)
    run.open(1)
    for waiting in range(2, 50):
        run.open(waiting)
    for whole in range(50, 90):
        run.open(whole, stream=False)
        run.sender.put([TokenChunk(whole, run.tokens[:1])])
    run.sender.put([TokenChunk(1, run.tokens[:1])])
    run.sender._take()
    alone = run.sender._gap()
    run.sender.put([TokenChunk(2, run.tokens[:1])])
    run.sender._take()
    assert run.sender._gap() == 2 * alone > 0
    run.finish("length", 1)
    run.sender._take()
    run.sender._send_due()
    assert run.sender._gap() == alone


def test_text_is_held_back_within_the_gap_and_goes_out_by_itself(tokenizer: TextTokenizer) -> None:
    run = Harness(tokenizer, responses_per_core=0.0001, started=False)
    handle = run.open()
    for token in run.tokens[:2]:
        run.sender.put([TokenChunk(1, [token])])
        run.sender._take()
        run.sender._send_due()
    assert len(handle.sent) == 1
    run.sender._per_second = 100.0
    while len(handle.sent) < 2:
        run.sender._take()  # nothing comes: it returns when the text has waited long enough
        run.sender._send_due()
    assert handle.text == TEXT[: len(handle.text)]


def test_what_the_server_has_given_up_is_cancelled(harness: Callable[..., Harness]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TritonModelException("no such request")

    run = harness()
    handle = run.open()
    handle.send = refuse  # type: ignore[method-assign]
    run.sender.put([TokenChunk(1, run.tokens)])
    run.sender.close()
    assert run.cancelled == [1]
    assert not run.sender.streams


def test_finished_requests_are_counted(harness: Callable[..., Harness]) -> None:
    run = harness()
    for request_id, reason in ((1, "length"), (2, "stop"), (3, "length")):
        run.open(request_id)
        run.sender.put([TokenChunk(request_id, run.tokens)])
        run.finish(reason, request_id)  # type: ignore[arg-type]
    run.sender.close()
    totals = run.sender.totals
    assert totals.finished == {"length": 2, "stop": 1}
    assert (totals.input_tokens, totals.cached_tokens) == (3 * 2, 3 * 1)
    assert totals.output_tokens == 3 * len(run.tokens)


def test_the_first_text_is_never_held_back(harness: Callable[..., Harness]) -> None:
    """A bound of almost nothing, and no further chunk that could push the text out."""
    run = harness(responses_per_core=0.0001)
    handle = run.open()
    run.sender.put([TokenChunk(1, run.tokens[:1])])
    other = run.open(2)
    run.finish("length", 2)
    run.sender.close()
    assert other.closed
    assert handle.text == TEXT[: len(handle.text)] != ""


def test_a_stop_word_ends_text_and_engine(harness: Callable[..., Harness]) -> None:
    run = harness()
    handle = run.open(stop_words=("x ju",))
    run.steps()
    run.finish("cancelled")
    run.sender.close()
    assert handle.text == "the quick brown fo"
    assert run.cancelled == [1]
    assert handle.last.outputs["finish_reason"].tolist() == [["stop"]]
    assert handle.last.outputs["stop_reason"].tolist() == [[b"x ju"]]


@pytest.mark.parametrize(
    ("reason", "tokens", "code"),
    [
        ("cancelled", True, TritonError.CANCELLED),
        ("error", True, TritonError.UNAVAILABLE),
        ("deadline", False, TritonError.UNAVAILABLE),
    ],
)
def test_ends_that_are_errors(
    harness: Callable[..., Harness], reason: FinishReason, tokens: bool, code: str
) -> None:
    run = harness()
    handle = run.open()
    if tokens:
        run.steps()
    run.finish(reason, error="because")
    run.sender.close()
    assert handle.last.error is not None
    assert handle.last.error.code == code
    assert ("because" in handle.last.error.message) == (reason == "error")


def test_a_deadline_after_some_text_keeps_the_text(harness: Callable[..., Harness]) -> None:
    run = harness()
    handle = run.open(stream=False)
    run.steps()
    run.finish("deadline")
    run.sender.close()
    assert handle.text == TEXT
    assert handle.last.outputs["finish_reason"].tolist() == [["deadline"]]


def test_many_streams_keep_their_own_text(harness: Callable[..., Harness]) -> None:
    run = harness()
    handles = [run.open(request_id) for request_id in range(1, 33)]
    for token in run.tokens:
        run.sender.put([TokenChunk(request_id, [token]) for request_id in range(1, 33)])
    for request_id in range(1, 33):
        run.finish("length", request_id)
    run.sender.close()
    assert {handle.text for handle in handles} == {TEXT}
    assert not run.sender.streams
    assert run.sender.totals.output_tokens == 32 * len(run.tokens)


def test_a_refused_request_is_never_asked_about_again(harness: Callable[..., Harness]) -> None:
    """The watch may have it in hand already when the refusal goes out, the last response."""
    run = harness()
    handle = run.open()
    stream = run.sender.streams[1]
    run.sender.drop(stream)
    responses.send_error(handle, "queue is full", TritonError.UNAVAILABLE)
    assert not stream.cancelled()


def test_failing_answers_each_open_request_once(harness: Callable[..., Harness]) -> None:
    run = harness()
    handles = [run.open(1), run.open(2)]
    threads = [threading.Thread(target=run.sender.fail_all, args=("gone",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(handle.sent) for handle in handles] == [1, 1]
    assert {handle.last.error.message for handle in handles if handle.last.error} == {"gone"}
