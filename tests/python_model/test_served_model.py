"""The rendered model on a real Triton, with the test engine behind it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from served_double import Triton
from triton_calls import Answer, Call, ask

pytestmark = pytest.mark.e2e
PROMPT = "the quick brown fox 🎉 jumps"


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def post(triton: Triton, path: str, body: Any) -> tuple[int, str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"{triton.http}/v2/models/{path}", data, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metric(triton: Triton, wanted: str) -> float:
    with urllib.request.urlopen(triton.metrics, timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(wanted.split("{")[0]) and wanted.split("{")[1][:-1] in line:
                return float(line.rsplit(" ", 1)[1])
    return float("nan")  # Triton shows a label from its first value on


def running(triton: Triton) -> float:
    return metric(triton, 'nv_trt_llm_request_metrics{request_type="active"}')


def test_streamed_and_whole_answers_agree(triton: Triton) -> None:
    whole = ask(triton.grpc, text_input=PROMPT, max_tokens=60)
    streamed = ask(triton.grpc, text_input=PROMPT, max_tokens=60, stream=True)
    assert whole.error is streamed.error is None
    assert len(whole.responses) == 1
    assert len(streamed.responses) > 5
    assert streamed.text == whole.text
    assert whole.text.startswith(PROMPT * 2)
    assert whole.last("finish_reason") == streamed.last("finish_reason") == "length"
    assert streamed.last("num_output_tokens") == 60


def test_32_streams_at_once_keep_apart(triton: Triton) -> None:
    prompts = [f"{PROMPT} {number}" for number in range(32)]

    def run(prompt: str) -> Answer:
        return ask(triton.grpc, text_input=prompt, max_tokens=100, stream=True)

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(run, prompts))
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.error is None
        assert answer.text.startswith(prompt * 2)
        assert answer.last("num_output_tokens") == 100


def test_stop_words_usage_and_log_probs(triton: Triton) -> None:
    answer = ask(
        triton.grpc,
        text_input=PROMPT,
        max_tokens=50,
        stream=True,
        stop_words=["fox", "zebra"],
        return_perf_metrics=True,
        return_log_probs=True,
    )
    assert answer.text == "the quick brown "
    assert (answer.last("finish_reason"), answer.last("stop_reason")) == ("stop", "fox")
    count = sum(each["output_log_probs"].size for each in answer.responses)
    assert count == answer.last("num_output_tokens") < 50
    assert sum(each["output_ids"].size for each in answer.responses) == count
    assert answer.last("cum_log_probs") == pytest.approx(-0.5 * count)
    assert 0 < answer.last("arrival_time_ns") <= answer.last("first_token_time_ns")


def test_shapes_are_those_of_upstreams_client(triton: Triton) -> None:
    """It reads text_output[0] and kv_cache_reused_blocks[0][0]."""
    (response,) = ask(
        triton.grpc, text_input=PROMPT, max_tokens=3, return_perf_metrics=True, beam_width=1
    ).responses
    assert response["text_output"].shape == (1,)
    for name in ("kv_cache_reused_blocks", "last_token_time_ns", "finish_reason"):
        assert response[name].shape == (1, 1)


def test_generate_endpoints(triton: Triton) -> None:
    body = {"text_input": PROMPT, "max_tokens": 20, "bad_words": "", "stop_words": ""}
    status, whole = post(triton, "chat/generate", body)
    assert status == 200
    status, events = post(triton, "chat/generate_stream", body | {"stream": True})
    assert status == 200
    pieces = [json.loads(line[5:]) for line in events.splitlines() if line.startswith("data:")]
    assert "".join(each["text_output"] for each in pieces) == json.loads(whole)["text_output"]
    assert pieces[-1]["finish_reason"] == "length"


def test_the_alias_speaks_the_llm_api(triton: Triton) -> None:
    body = {
        "text_input": PROMPT,
        "sampling_param_max_tokens": 5,
        "sampling_param_return_perf_metrics": True,
        "return_finish_reason": True,
    }
    status, text = post(triton, "tensorrt_llm/generate", body)
    answer = json.loads(text)
    assert status == 200, text
    assert answer["finish_reason"] == "length"
    assert answer["kv_cache_missed_block"] == 1
    assert ask(triton.grpc, text_input=PROMPT, max_tokens=5).text == answer["text_output"]
    given = {
        "text_input": np.array([PROMPT], dtype=object),
        "sampling_param_max_tokens": np.array([5], dtype=np.int32),
        "sampling_param_stop": np.array(["zebra", "lion"], dtype=object),
        "streaming": np.array([True]),
    }
    streamed = ask(triton.grpc, "tensorrt_llm", **given)
    assert streamed.error is None
    assert streamed.text == answer["text_output"]


def test_a_client_that_hangs_up_frees_its_place(triton: Triton) -> None:
    until(lambda: running(triton) == 0)
    call = Call(triton.grpc, "chat", {"text_input": PROMPT, "max_tokens": 4000, "stream": True})
    assert call.next()
    cancelled = 'toolkit_llm_requests_total{finish_reason="cancelled"}'
    call.close(hang_up=True)
    until(lambda: metric(triton, cancelled) >= 1, seconds=4)
    until(lambda: running(triton) == 0)


def test_stop_with_the_request_id_cancels(triton: Triton) -> None:
    given = {"text_input": PROMPT, "max_tokens": 4000, "stream": True}
    call = Call(triton.grpc, "chat", given, request_id="r-7")
    assert call.next()
    stop = Call(triton.grpc, "chat", {"text_input": "", "stop": True}, request_id="r-7").all()
    assert "cancelled" in (stop.error or "")
    assert "cancelled" in (call.all().error or "")


def test_deadline(triton: Triton) -> None:
    answer = ask(triton.grpc, text_input=PROMPT, max_tokens=4000, deadline_ms=300)
    assert answer.last("finish_reason") == "deadline"
    assert 0 < answer.last("num_output_tokens") < 4000


def test_a_full_queue_is_refused_and_the_rest_is_served(triton: Triton) -> None:
    """32 run, 4 may wait: of 60 at once some are refused, none is lost."""

    def run(_: int) -> Answer:
        return ask(triton.grpc, text_input=PROMPT, max_tokens=300)

    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(run, range(60)))
    refused = [each.error for each in answers if each.error]
    assert refused
    assert all("queue is full, retry later" in each for each in refused)
    served = [each for each in answers if not each.error]
    assert len(served) >= 36
    assert all(each.last("num_output_tokens") == 300 for each in served)


def test_metrics_carry_upstreams_names(triton: Triton) -> None:
    assert metric(triton, 'nv_trt_llm_request_metrics{request_type="max"}') == 32
    assert metric(triton, 'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max"}') == 100
    iterations = 'nv_trt_llm_general_metrics{general_type="iteration_counter"}'
    assert metric(triton, iterations) > 0
    assert metric(triton, 'toolkit_llm_ratio{ratio="draft_acceptance"}') == 0
