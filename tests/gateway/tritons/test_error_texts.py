"""What a server's error text means for the request that met it."""

from __future__ import annotations

import pytest

from toolkit.gateway.triton.failure import ReplicaFailure, understand
from toolkit.gateway.work import GatewayError

INPUTS = frozenset({"text_input", "top_p", "stop_words", "guided_decoding_guide"})


@pytest.mark.parametrize(
    ("text", "field", "told"),
    [
        ("top_p: must be at most 1, got 3", "top_p", "top_p: must be at most 1, got 3"),
        ("text_input: is empty", "prompt", "prompt: is empty"),
        ("[request id: 7] stop_words: holds 99 entries", "stop", "stop: holds 99 entries"),
        (
            "request refused: guided_decoding_guide: no JSON",
            "response_format",
            "response_format: no JSON",
        ),
    ],
)
def test_a_field_at_fault_is_the_clients_to_mend(text: str, field: str, told: str) -> None:
    error = understand(text, INPUTS)
    assert isinstance(error, GatewayError)
    assert (error.status, error.param, error.message) == (400, field, told)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("queue is full, retry later: 96 requests run or wait", "busy"),
        ("Exceeds maximum queue size", "busy"),
        ("the engine failed: RuntimeError('x')", "server"),
        ("unknown: field of nobody", "server"),
    ],
)
def test_what_the_server_did_wrong_another_may_do_right(text: str, cause: str) -> None:
    failure = understand(text, INPUTS)
    assert isinstance(failure, ReplicaFailure)
    assert failure.cause == cause


def test_a_deadline_that_passed_is_told_as_such() -> None:
    error = understand("deadline_ms: passed before the first token; retry later", INPUTS)
    assert isinstance(error, GatewayError)
    assert (error.status, error.code) == (504, "deadline_exceeded")
