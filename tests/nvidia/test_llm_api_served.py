"""The LLM API runtime on a real Triton, over a stand-in that has just the documented surface."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cpu_reference import Reference
from llm_api_server import FATAL_SEED, REQUEST_ERROR_SEED, notes, render_llm_api, seen
from prompts import EMOJI, PROMPTS
from served_double import Triton, start_triton, stop_triton
from test_served_model import metric, post, running, until
from triton_calls import Answer, Call, ask

from toolkit.engine.pytorch import argument_problems
from toolkit.releases import release

if TYPE_CHECKING:
    from toolkit.workspace import Artifact

pytestmark = pytest.mark.e2e
TOKENS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llm_api")


@pytest.fixture(scope="module")
def server(folder: Path, plain_engine: Artifact, sample_checkpoint: Artifact) -> Iterator[Triton]:
    repository = render_llm_api(
        folder, plain_engine.path, sample_checkpoint.path, keeps_end_token=True
    )
    started = start_triton(repository, "chat", folder / "server.log")
    yield started
    stop_triton(started)


def check_same(server: Triton, reference: Reference, prompts: list[str], stream: bool) -> None:
    def run(prompt: str) -> Answer:
        return ask(server.grpc, text_input=prompt, max_tokens=TOKENS, stream=stream)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(run, prompts))
    assert [each.error for each in found] == [None] * len(found)
    assert [each.text for each in found] == reference.texts(prompts, TOKENS)


@pytest.mark.parametrize("stream", [False, True])
def test_same_text_as_the_engine(server: Triton, reference: Reference, stream: bool) -> None:
    check_same(server, reference, [EMOJI, *PROMPTS[::10]], stream)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_same_text_for_fifty_prompts(server: Triton, reference: Reference, stream: bool) -> None:
    check_same(server, reference, PROMPTS, stream)


def test_the_llm_was_made_of_model_yaml(server: Triton, folder: Path) -> None:
    (made,) = seen(folder / "repository")
    arguments = made["arguments"]
    assert not list(argument_problems(arguments, release("1.2.1")))
    version = folder / "repository/chat/1"
    assert arguments["model"] == str(version / "model")
    assert arguments["lora_config"]["lora_dir"][0] == str(version / "adapters/sql")
    assert arguments["guided_decoding_backend"] == "xgrammar"


def test_stop_words_log_probs_and_usage(server: Triton, reference: Reference) -> None:
    whole = reference.texts([PROMPTS[3]], TOKENS)[0]
    word = whole.split()[4]
    given = {"text_input": PROMPTS[3], "max_tokens": TOKENS, "return_log_probs": True}
    answer = ask(server.grpc, stop_words=[word], stream=True, **given)
    assert answer.text == whole[: whole.index(word)]
    assert (answer.last("finish_reason"), answer.last("stop_reason")) == ("stop", word)
    answer = ask(server.grpc, return_perf_metrics=True, **given)
    count = sum(each["output_log_probs"].size for each in answer.responses)
    assert count == answer.last("num_output_tokens")
    assert answer.last("cum_log_probs") < 0
    assert 0 < answer.last("arrival_time_ns") <= answer.last("first_token_time_ns")
    assert answer.last("kv_cache_alloc_total_blocks") >= 1


def test_bad_words_seeds_and_penalties(server: Triton, reference: Reference) -> None:
    whole = reference.texts([PROMPTS[3]], TOKENS)[0]
    word = whole.split()[4]
    given = {"text_input": PROMPTS[3], "max_tokens": TOKENS}
    assert word not in ask(server.grpc, bad_words=[word], **given).text.split()
    warm = {**given, "temperature": 1.0, "top_k": 40}
    one, same, other = (ask(server.grpc, seed=seed, **warm).text for seed in (1, 1, 2))
    assert one == same != other
    unseeded = {ask(server.grpc, **warm).text for _ in range(3)}
    assert len(unseeded) > 1
    assert ask(server.grpc, frequency_penalty=1.5, **given).text != whole


def test_guides_and_adapters_reach_the_llm(server: Triton, folder: Path) -> None:
    given = {"text_input": "hello", "max_tokens": 3}
    guided = ask(
        server.grpc,
        guided_decoding_guide_type="json_schema",
        guided_decoding_guide='{"type": "object"}',
        lora_name="poems",
        **given,
    )
    assert guided.error is None
    brought = notes(folder)
    adapter = next(each["adapter"] for each in brought if "adapter" in each)
    assert adapter[:2] == ["poems", 2]
    assert adapter[2].endswith("chat/1/adapters/poems")
    assert any('"type": "object"' in each.get("guide", "") for each in brought)
    refused = ask(server.grpc, lora_name="none", **given)
    assert "lora_name: 'none' is none of sql, poems" in (refused.error or "")
    wrong = ask(server.grpc, guided_decoding_guide_type="xml", **given)
    assert "guided_decoding_guide_type: must be one of" in (wrong.error or "")


def test_an_error_of_one_request_ends_that_request_alone(server: Triton) -> None:
    given = {"text_input": "hello", "max_tokens": 3}
    refused = ask(server.grpc, seed=REQUEST_ERROR_SEED, temperature=1.0, **given)
    assert "too long for this executor" in (refused.error or "")
    assert ask(server.grpc, **given).error is None


def test_cancelling_and_deadlines_free_the_place(server: Triton) -> None:
    given = {"text_input": PROMPTS[3], "max_tokens": 700, "stream": True, "end_id": -1}
    call = Call(server.grpc, "chat", given)
    assert call.next()
    call.close(hang_up=True)
    until(lambda: running(server) == 0, 10)
    late = ask(server.grpc, deadline_ms=600, **given)
    assert late.last("finish_reason") == "deadline"
    assert 0 < late.last("num_output_tokens") < 700


def test_a_full_queue_is_refused_and_the_rest_is_served(server: Triton) -> None:
    """16 run, 24 may wait: of 60 at once some are refused, none is lost."""

    def run(_: int) -> Answer:
        return ask(server.grpc, text_input="hello", max_tokens=60, end_id=-1)

    with ThreadPoolExecutor(60) as pool:
        found = list(pool.map(run, range(60)))
    refused = [each.error for each in found if each.error]
    assert refused
    assert all("queue is full, retry later" in each for each in refused)
    assert all(e.last("num_output_tokens") == 60 for e in found if not e.error)


def test_metrics_come_from_iteration_statistics(server: Triton) -> None:
    call = Call(server.grpc, "chat", {"text_input": PROMPTS[3], "max_tokens": 300, "end_id": -1})
    try:
        until(lambda: running(server) >= 1, 10)
        cache = "nv_trt_llm_kv_cache_block_metrics"
        until(lambda: metric(server, f'{cache}{{kv_cache_block_type="used"}}') > 0, 10)
        assert metric(server, f'{cache}{{kv_cache_block_type="tokens_per"}}') == 32
        memory = 'nv_trt_llm_runtime_memory_metrics{memory_type="gpu"}'
        assert metric(server, memory) == 7_000_000
    finally:
        call.close(hang_up=True)
    until(lambda: running(server) == 0, 10)


def test_the_alias_has_the_release_s_tensors(server: Triton, reference: Reference) -> None:
    body = {"text_input": PROMPTS[0], "sampling_param_max_tokens": TOKENS,
            "return_finish_reason": True}  # fmt: skip
    status, text = post(server, "tensorrt_llm/generate", body)
    assert status == 200, text
    assert json.loads(text)["text_output"] == reference.texts([PROMPTS[0]], TOKENS)[0]
    given = {
        "text_input": np.array([PROMPTS[0]], dtype=object),
        "sampling_param_max_tokens": np.array([TOKENS], dtype=np.int32),
        "streaming": np.array([True]),
    }
    streamed = ask(server.grpc, "tensorrt_llm", **given)
    assert streamed.text == json.loads(text)["text_output"]


def test_an_executor_that_dies_takes_the_process_with_it(server: Triton) -> None:
    """Last of all tests here. Only a process that is gone is noticed and restarted."""
    open_still = Call(server.grpc, "chat", {"text_input": "x", "max_tokens": 700, "end_id": -1})
    time.sleep(0.5)
    died = ask(server.grpc, text_input="x", max_tokens=3, seed=FATAL_SEED, temperature=1.0)
    assert "worker has died" in (died.error or "")
    assert open_still.all().error

    def gone() -> bool:
        return "not healthy" in (ask(server.grpc, text_input="x", max_tokens=3).error or "")

    until(gone, 20)


def test_two_replicas_have_gpus_of_their_own(
    tmp_path: Path, plain_engine: Artifact, sample_checkpoint: Artifact, reference: Reference
) -> None:
    repository = render_llm_api(
        tmp_path, plain_engine.path, sample_checkpoint.path, replicas=2, plain_logprobs=True
    )
    started = start_triton(repository, "chat", tmp_path / "server.log")
    try:
        made = seen(repository)
        assert sorted(each["visible"] for each in made) == ["0", "1"]
        assert {each["arguments"]["gpus_per_node"] for each in made} == {1}
        check_same(started, reference, PROMPTS[:8], stream=True)
        scored: Any = ask(started.grpc, text_input="x", max_tokens=4, return_log_probs=True)
        assert scored.last("cum_log_probs") < 0
        time.sleep(1)
        family = 'nv_trt_llm_request_metrics{instance="chat_0_%d",model="chat",request_type="max"}'
        labels = {metric(started, family % number) for number in (0, 1)}
        assert labels == {16}
    finally:
        stop_triton(started)
