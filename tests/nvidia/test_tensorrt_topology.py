"""The engine path on a real Triton: same text as the CPU engine gives when driven directly."""

from __future__ import annotations

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cpu_reference import Reference
from prompts import EMOJI, PROMPTS
from served_double import Triton
from test_served_model import metric, post, until
from triton_calls import Answer, Call, ask

pytestmark = pytest.mark.e2e
MODELS = ("chat", "tensorrt_llm_bls", "ensemble")
TOKENS = 24


def answers(
    triton: Triton, model: str, prompts: list[str], at_once: int, **given: Any
) -> list[Answer]:
    def run(numbered: tuple[int, str]) -> Answer:
        number, prompt = numbered
        wanted = {"text_input": prompt, "max_tokens": TOKENS, **given}
        # The ensemble's steps meet again by this id alone.
        return Call(triton.grpc, model, wanted, request_id=f"{model}-{number}").all()

    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(run, enumerate(prompts)))
    assert [each.error for each in found] == [None] * len(found)
    return found


def check_same(
    triton: Triton, reference: Reference, model: str, prompts: list[str], stream: bool
) -> None:
    texts = [each.text for each in answers(triton, model, prompts, 16, stream=stream)]
    wanted = reference.texts(prompts, TOKENS)
    if model == "ensemble":
        # It leaves the beginning of a character at the very end out, and never shows it broken.
        wanted = [text.rstrip("\ufffd") for text in wanted]
    assert texts == wanted


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_same_text_as_the_engine(
    tensorrt_server: Triton, reference: Reference, model: str, stream: bool
) -> None:
    prompts = [EMOJI, *PROMPTS[:: len(PROMPTS) // 5]]
    check_same(tensorrt_server, reference, model, prompts, stream)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_same_text_for_fifty_prompts(
    tensorrt_server: Triton, reference: Reference, model: str, stream: bool
) -> None:
    check_same(tensorrt_server, reference, model, PROMPTS, stream)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["chat", "tensorrt_llm_bls"])
def test_same_text_for_fifty_prompts_without_drafts(
    tensorrt_server: Triton, reference: Reference, model: str
) -> None:
    for stream in (False, True):
        given: dict[str, Any] = {"num_draft_tokens": np.array([[0]], np.int32), "stream": stream}
        texts = [each.text for each in answers(tensorrt_server, model, PROMPTS, 16, **given)]
        assert texts == reference.texts(PROMPTS, TOKENS)


def test_drafts_are_confirmed_and_refused(tensorrt_server: Triton, reference: Reference) -> None:
    """The draft is wrong at every fourth token; without it nothing is proposed."""
    given = {"text_input": PROMPTS[3], "max_tokens": TOKENS, "return_perf_metrics": True}
    drafted = ask(tensorrt_server.grpc, "chat", **given)
    assert 0 < drafted.last("total_accepted_draft_tokens") < drafted.last("total_draft_tokens")
    assert 0 < drafted.last("acceptance_rate") < 1
    none = np.array([[0]], np.int32)
    plain = ask(tensorrt_server.grpc, "chat", num_draft_tokens=none, **given)
    assert plain.last("total_draft_tokens") == 0
    assert plain.text == drafted.text == reference.texts([PROMPTS[3]], TOKENS)[0]
    assert drafted.last("num_output_tokens") == plain.last("num_output_tokens")
    assert plain.last("arrival_time_ns") <= plain.last("first_token_time_ns")


def test_streams_come_in_pieces(tensorrt_server: Triton) -> None:
    given = {"text_input": PROMPTS[3], "max_tokens": TOKENS, "stream": True}
    drafted = ask(tensorrt_server.grpc, "chat", **given)
    assert len(drafted.responses) > 3
    assert drafted.last("finish_reason") == "length"
    with_ids = Call(tensorrt_server.grpc, "ensemble", given, request_id="pieces").all()
    assert len(with_ids.responses) > 10


def test_stop_words_bad_words_and_log_probs(tensorrt_server: Triton, reference: Reference) -> None:
    whole = reference.texts([PROMPTS[3]], TOKENS)[0]
    word = whole.split()[4]
    for drafts in (0, 3):
        answer = ask(
            tensorrt_server.grpc,
            "chat",
            text_input=PROMPTS[3],
            max_tokens=TOKENS,
            stop_words=[word],
            return_log_probs=True,
            num_draft_tokens=np.array([[drafts]], np.int32),
        )
        assert answer.text == whole[: whole.index(word)]
        assert (answer.last("finish_reason"), answer.last("stop_reason")) == ("stop", word)
        assert answer.last("cum_log_probs") < 0
    without = ask(
        tensorrt_server.grpc, "chat", text_input=PROMPTS[3], max_tokens=TOKENS, bad_words=[word]
    )
    assert word not in without.text.split()


def test_upstreams_ensemble_client(tensorrt_server: Triton, reference: Reference) -> None:
    """The tensors that NVIDIA's end_to_end_grpc_client.py sends, under the names it uses."""
    whole = reference.texts([PROMPTS[0]], TOKENS)[0]
    end = reference.tokenizer.end_tokens[0]
    given = {
        "text_input": PROMPTS[0],
        "max_tokens": TOKENS,
        "bad_words": [""],
        "stop_words": [""],
        "stream": False,
        "beam_width": 1,
        "temperature": 1.0,
        "top_k": 1,
        "top_p": 0.0,
        "length_penalty": np.array([[1.0]], np.float32),
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": 0,
        "return_log_probs": True,
        "end_id": end,
        "pad_id": np.array([[end]], np.int32),
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
        "return_perf_metrics": True,
        "exclude_input_in_output": True,
    }
    for model in MODELS:
        for stream in (False, True):
            answer = ask(tensorrt_server.grpc, model, **{**given, "stream": stream})
            assert answer.error is None, model
            assert answer.text == whole
            assert answer.responses[-1]["text_output"].shape == (1,)
            assert answer.last("num_output_tokens") == len(
                reference.tokens([PROMPTS[0]], TOKENS)[0]
            )
            assert answer.responses[-1]["kv_cache_reused_blocks"].shape == (1, 1)
            assert answer.responses[-1]["output_log_probs"].ndim == 3


def test_generate_endpoints(tensorrt_server: Triton, reference: Reference) -> None:
    whole = reference.texts([PROMPTS[0]], TOKENS)[0]
    end = reference.tokenizer.end_tokens[0]
    body = {"text_input": PROMPTS[0], "max_tokens": TOKENS, "bad_words": "", "stop_words": "",
            "pad_id": end, "end_id": end}  # fmt: skip
    for model in MODELS:
        status, text = post(tensorrt_server, f"{model}/generate", body)
        assert (status, json.loads(text)["text_output"]) == (200, whole), text
        status, events = post(tensorrt_server, f"{model}/generate_stream", {**body, "stream": True})
        assert status == 200
        pieces = [json.loads(line[5:]) for line in events.splitlines() if line.startswith("data:")]
        assert "".join(each["text_output"] for each in pieces) == whole


def test_the_ensemble_takes_several_prompts_at_once(
    tensorrt_server: Triton, reference: Reference
) -> None:
    """Wrong requests are refused by the field, whichever step finds it."""
    for model, field in (("ensemble", "beam width"), ("chat", "beam_width")):
        answer = ask(tensorrt_server.grpc, model, text_input="x", max_tokens=4, beam_width=2)
        assert field in (answer.error or "")
    bad = ask(tensorrt_server.grpc, "ensemble", text_input=b"\xff\xfe", max_tokens=4)
    assert "text_input: is not valid UTF-8" in (bad.error or "")
    refused = ask(tensorrt_server.grpc, "chat", text_input="x", max_tokens=4, presence_penalty=0.5)
    assert "presence_penalty: not together with a draft model" in (refused.error or "")


def test_a_client_that_hangs_up_frees_its_place(tensorrt_server: Triton) -> None:
    given = {"text_input": PROMPTS[3], "max_tokens": 700, "stream": True, "end_id": -1,
             "num_draft_tokens": np.array([[0]], np.int32)}  # fmt: skip
    call = Call(tensorrt_server.grpc, "chat", given)
    assert call.next()
    cancelled = 'toolkit_llm_requests_total{finish_reason="cancelled"}'
    before = metric(tensorrt_server, cancelled)
    call.close(hang_up=True)
    until(lambda: metric(tensorrt_server, cancelled) > (0 if before != before else before), 10)
    begun = time.monotonic()
    answer = ask(tensorrt_server.grpc, "chat", text_input="hello", max_tokens=4)
    assert answer.error is None
    assert time.monotonic() - begun < 30


def test_deadlines_end_what_the_backend_computes(tensorrt_server: Triton) -> None:
    answer = ask(
        tensorrt_server.grpc,
        "chat",
        text_input=PROMPTS[3],
        max_tokens=700,
        end_id=-1,
        deadline_ms=700,
        stream=True,
    )
    assert answer.last("finish_reason") == "deadline"
    assert 0 < answer.last("num_output_tokens") < 700


def test_metrics_leave_nvidias_families_to_nvidias_backend(tensorrt_server: Triton) -> None:
    ask(tensorrt_server.grpc, "chat", text_input="hello", max_tokens=4)
    time.sleep(1)
    with urllib.request.urlopen(tensorrt_server.metrics, timeout=10) as found:
        text = found.read().decode()
    assert "nv_trt_llm" not in text
    assert 'toolkit_llm_tokens_total{kind="draft"' in text
