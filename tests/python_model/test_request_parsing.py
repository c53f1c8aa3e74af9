from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llm_serving.request import ParsedRequest, parse
from llm_serving.settings import Limits, Requests
from llm_serving.tensors import FieldError, Fields
from llm_serving.tokenizer import TextTokenizer
from llm_serving.unsupported import check_parameters

Parse = Callable[..., ParsedRequest]
KINDS = {str: object, bytes: object, int: np.int32, float: np.float32, bool: np.bool_}


def tensor(value: Any) -> np.ndarray[Any, Any]:
    values = value if isinstance(value, list) else [value]
    if isinstance(values[0], str):
        values = [each.encode() for each in values]
    return np.array([values], dtype=KINDS[type(values[0])])


@pytest.fixture(scope="module")
def parsed(checkpoint: Path) -> Parse:
    tokenizer = TextTokenizer(checkpoint)

    def run(**given: Any) -> ParsedRequest:
        given = {"text_input": "the quick fox"} | given
        arrays = {
            name: value if isinstance(value, np.ndarray) else tensor(value)
            for name, value in given.items()
        }
        limits = Limits(max_input_len=50, max_seq_len=100)
        return parse(Fields(arrays.get), tokenizer, limits, Requests())

    return run


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("text_input", "", "empty"),
        ("text_input", b"a\xff\xfe", "UTF-8 at byte 1"),
        ("text_input", "é日" * 60, "max_input_len"),
        ("text_input", "x" * 100_000, "bytes"),
        ("text_input", ["a", "b"], "one value"),
        ("max_tokens", 0, "at least 1"),
        ("max_tokens", -5, "at least 1"),
        ("max_tokens", 1.5, "whole number"),
        ("max_tokens", [1, 2], "one value"),
        ("min_tokens", -1, "at least 0"),
        ("temperature", -0.1, "at least 0"),
        ("temperature", float("nan"), "finite"),
        ("temperature", float("inf"), "finite"),
        ("temperature", "hot", "number"),
        ("top_p", 1.5, "at most 1"),
        ("top_p", -0.5, "at least 0"),
        ("top_p", float("nan"), "finite"),
        ("top_k", -1, "at least 0"),
        ("repetition_penalty", 0.0, "above 0"),
        ("repetition_penalty", float("inf"), "finite"),
        ("presence_penalty", float("nan"), "finite"),
        ("frequency_penalty", float("-inf"), "finite"),
        ("stop_words", ["x"] * 65, "65 entries"),
        ("stop_words", "y" * 2000, "2000 bytes"),
        ("stop_words", [b"ok", b"\xff"], "UTF-8"),
        ("bad_words", ["x"] * 65, "65 entries"),
        ("bad_words", b"\xc3", "UTF-8"),
        ("beam_width", 2, "only 1"),
        ("num_return_sequences", 3, "only 1"),
        ("end_id", 5000, "at most"),
        ("end_id", -2, "at least -1"),
        ("deadline_ms", 0, "at least 1"),
        ("stream", 1, "true or false"),
        ("return_log_probs", "yes", "true or false"),
    ],
)
def test_what_is_wrong_is_named(parsed: Parse, field: str, value: Any, problem: str) -> None:
    with pytest.raises(FieldError, match=f"^{field}: .*{problem}"):
        parsed(**{field: value})


@pytest.mark.parametrize(
    ("given", "temperature"),
    [
        ({}, 0.0),
        ({"temperature": 0.0, "top_k": 5}, 0.0),
        ({"temperature": 0.7, "top_k": 1}, 0.0),
        ({"temperature": 0.7, "top_p": 0.0}, 0.0),
        ({"top_k": 0}, 0.0),
        ({"top_k": 4}, 1.0),
        ({"top_p": 0.9}, 1.0),
        ({"temperature": 0.5}, 0.5),
    ],
)
def test_which_parameters_mean_greedy(
    parsed: Parse, given: dict[str, Any], temperature: float
) -> None:
    assert parsed(**given).sampling.temperature == pytest.approx(temperature)


def test_max_tokens_is_cut_to_the_sequence_length(parsed: Parse) -> None:
    request = parsed(max_tokens=2**31 - 1)
    assert len(request.prompt) + request.sampling.max_tokens == 100
    assert parsed().sampling.max_tokens == 32


def test_the_longest_prompt_is_taken_and_one_token_more_is_not(parsed: Parse) -> None:
    assert len(parsed(text_input="q" * 50).prompt) == 50
    with pytest.raises(FieldError, match="has 51 tokens, max_input_len is 50"):
        parsed(text_input="q" * 51)


def test_priority_and_deadline(parsed: Parse) -> None:
    assert (parsed().priority, parsed().deadline_s) == (0, None)
    request = parsed(priority=np.array([[-3]], np.int32), deadline_ms=1500)
    assert (request.priority, request.deadline_s) == (-3, 1.5)


def test_older_names_and_end_tokens(parsed: Parse) -> None:
    seed = np.array([[2**64 - 1]], dtype=np.uint64)
    assert parsed(random_seed=seed).sampling.seed == 2**64 - 1
    assert parsed(min_length=3).sampling.min_tokens == 3
    assert parsed().sampling.stop_token_ids == (0,)
    assert parsed(end_id=7).sampling.stop_token_ids == (7,)
    assert parsed(end_id=-1).sampling.stop_token_ids == ()


def test_words(parsed: Parse, checkpoint: Path) -> None:
    tokenizer = TextTokenizer(checkpoint)
    request = parsed(stop_words=["", "fox", "fox", "END"], bad_words="lazy")
    assert request.wishes.stop_words == ("fox", "END")
    assert set(request.sampling.bad_words) == {
        tokenizer.encode("lazy", special=False),
        tokenizer.encode(" lazy", special=False),
    }


def test_echo_is_only_on_request(parsed: Parse) -> None:
    assert parsed().wishes.echo == ""
    assert parsed(exclude_input_in_output=False).wishes.echo == "the quick fox"


KNOWN = {"max_tokens", "temperature", "stream", "stop_words"}


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ('{"lora_task_id": 4}', "lora_task_id"),
        ('{"return_context_logits": true}', "return_context_logits"),
        ('{"max_token": 4}', "max_token: is not a field; max_tokens is"),
        ('{"temprature": 1}', "temprature"),
    ],
)
def test_fields_that_triton_would_overlook(parameters: str, field: str) -> None:
    with pytest.raises(FieldError, match=f"^{field}"):
        check_parameters(parameters, KNOWN)


@pytest.mark.parametrize(
    "parameters",
    [
        "",
        "{}",
        '{"Streaming": true}',
        '{"triton_enable_empty_final_response": true}',
        '{"return_context_logits": false}',
        '{"user": "me"}',
    ],
)
def test_other_parameters_pass(parameters: str) -> None:
    check_parameters(parameters, KNOWN)
