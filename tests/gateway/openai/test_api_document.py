"""The OpenAPI document says what the API does: held against it by generated requests."""

from __future__ import annotations

import json

import httpx
import hypothesis
import pytest

from toolkit.gateway.openai.responses import ChatCompletionChunk, TextCompletionChunk

OPERATIONS = (
    ("GET", "/v1/models", "positive"),
    ("GET", "/v1/models/{model}", "positive"),
    ("GET", "/v1/models/{model}", "negative"),
    ("GET", "/health", "positive"),
    ("GET", "/ready", "positive"),
    ("POST", "/v1/chat/completions", "positive"),
    ("POST", "/v1/chat/completions", "negative"),
    ("POST", "/v1/completions", "positive"),
    ("POST", "/v1/completions", "negative"),
)


@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS)
def test_generated_requests_find_no_defect_and_no_undocumented_answer(target, method, path, mode):
    if target.real:
        pytest.skip("generated requests ask for as many tokens as there are")
    import schemathesis

    checks = schemathesis.checks
    schema = schemathesis.openapi.from_url(f"{target.url}/openapi.json")
    how = schemathesis.GenerationMode(mode)
    # Whether a valid value means something is the model's matter: its template, its guide.
    left_out = [checks.CHECKS.get_by_names(["positive_data_acceptance"])[0]]

    @hypothesis.settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=schema[path][method].as_strategy(generation_mode=how))
    def check(case):
        case.call_and_validate(excluded_checks=left_out, timeout=60)

    check()


@pytest.mark.parametrize(
    ("path", "asked", "chunk"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x"}]},
            ChatCompletionChunk,
        ),
        ("/v1/completions", {"prompt": ["x", "y"]}, TextCompletionChunk),
    ],
)
@pytest.mark.parametrize(
    "more", [{}, {"logprobs": True, "n": 2}, {"stop": ["e"], "service_tier": "batch"}]
)
def test_every_event_of_a_stream_is_what_the_document_says(target, path, asked, chunk, more):
    if "prompt" in asked and "logprobs" in more:
        more = {**more, "logprobs": 0}
    body = {"model": target.model, "max_tokens": 6, "stream": True, **asked, **more}
    body["stream_options"] = {"include_usage": True}
    answer = httpx.post(f"{target.url}{path}", json=body, timeout=120)
    *events, done = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    assert done == "[DONE]"
    for event in events:
        chunk.model_validate_json(event)
        assert set(json.loads(event)) <= set(chunk.model_fields)


def test_every_field_is_described(target):
    document = httpx.get(f"{target.url}/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert document["openapi"].startswith("3.")
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        for field in ("model", "temperature", "stop", "logit_bias", "service_tier", "top_k"):
            assert field in schemas[name]["properties"]
        assert schemas[name]["properties"]["model"]["enum"] == [target.model]


def test_keys_are_part_of_the_document_where_they_are_asked_for():
    from toolkit.gateway.openai.openapi import document

    keyed = document("1", ["m"], keys=True)
    assert keyed["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
    assert "security" not in keyed["paths"]["/health"]["get"]
    assert "securitySchemes" not in document("1", ["m"], keys=False)["components"]
