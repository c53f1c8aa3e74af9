"""What a client is told when something behind the API refuses, fails or breaks off."""

from __future__ import annotations

import asyncio
import json
import logging

import httpx
import pytest
import uvloop
from openai_stand_in import Scripted, said, serving

from toolkit.gateway.openai import create_app
from toolkit.gateway.work import Final, GatewayError, Piece, Usage

BODY = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi."}]}
BUSY = GatewayError(
    429, "too many wait", kind="rate_limit_error", code="queue_full", retry_after_s=1.25
)


def refusing(error):
    async def script(work):
        raise error
        yield Piece("never")

    return script


def failing(error, *texts):
    async def script(work):
        for text in texts:
            yield Piece(text)
            await asyncio.sleep(0)
        raise error

    return script


def post(model, script, path="/v1/chat/completions", **fields):
    """The answer to one request."""

    async def main():
        app = create_app({model.name: model}, Scripted(script))
        async with (
            serving(app) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        ):
            return await http.post(path, json={**BODY, **fields}, timeout=60)

    return uvloop.run(main())


def lines(answer):
    return [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]


@pytest.mark.parametrize("stream", [True, False])
def test_a_refusal_is_the_answers_status(sample_model, stream):
    answer = post(sample_model, refusing(BUSY), stream=stream)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["retry-after-ms"] == "1250"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"] == {
        "message": "too many wait",
        "type": "rate_limit_error",
        "param": None,
        "code": "queue_full",
    }


@pytest.mark.parametrize("stream", [True, False])
def test_a_defect_tells_nothing_of_itself(sample_model, stream, caplog):
    with caplog.at_level(logging.CRITICAL):
        answer = post(sample_model, refusing(ZeroDivisionError("secret")), stream=stream)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_without_an_end_is_an_error(sample_model, stream):
    answer = post(sample_model, [], stream=stream)
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "server_error"


def test_an_error_after_the_first_token_ends_a_whole_answer_with_its_status(sample_model):
    error = GatewayError(502, "the replica died", kind="server_error", code="replica_lost")
    answer = post(sample_model, failing(error, "a", "b"))
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "replica_lost"


@pytest.mark.parametrize("n", [1, 3])
def test_an_error_after_the_first_token_is_the_last_event_of_a_stream(sample_model, n):
    error = GatewayError(502, "the replica died", kind="server_error", code="replica_lost")
    answer = post(sample_model, failing(error, "a", "b"), stream=True, n=n)
    assert answer.status_code == 200
    told = lines(answer)
    assert json.loads(told[-1])["error"]["code"] == "replica_lost"
    assert "[DONE]" not in told
    assert [json.loads(line) for line in told[:-1]]


def test_a_defect_after_the_first_token_tells_nothing_of_itself(sample_model, caplog):
    with caplog.at_level(logging.CRITICAL):
        answer = post(sample_model, failing(ZeroDivisionError("secret"), "a"), stream=True)
    assert json.loads(lines(answer)[-1])["error"]["code"] == "internal_error"
    assert "secret" not in answer.text


def test_the_official_client_raises_an_error_that_comes_in_a_stream(sample_model):
    from openai import APIError, AsyncOpenAI

    error = GatewayError(502, "the replica died", kind="server_error", code="replica_lost")

    async def main():
        app = create_app({sample_model.name: sample_model}, Scripted(failing(error, "a", "b")))
        async with (
            serving(app) as port,
            AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x") as client,
        ):
            stream = await client.chat.completions.create(**BODY, stream=True)
            return [chunk async for chunk in stream]

    with pytest.raises(APIError, match="the replica died") as caught:
        uvloop.run(main())
    assert caught.value.code == "replica_lost"


def test_one_failure_ends_the_other_answers(sample_model):
    async def script(work):
        yield Piece("a")
        if work.id.endswith("-1"):
            raise BUSY
        await asyncio.Event().wait()

    generator = Scripted(script)

    async def main():
        app = create_app({sample_model.name: sample_model}, generator)
        async with (
            serving(app) as port,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        ):
            return await http.post("/v1/chat/completions", json={**BODY, "n": 3}, timeout=60)

    assert uvloop.run(main()).status_code == 429
    assert generator.running == 0
    assert generator.ended == 3


def test_a_deadline_is_a_length_and_says_so(sample_model):
    pieces = said("a", reason="deadline")
    choice = post(sample_model, pieces).json()["choices"][0]
    assert (choice["finish_reason"], choice["cut_by"]) == ("length", "deadline")
    last = json.loads(lines(post(sample_model, pieces, stream=True))[-2])["choices"][0]
    assert (last["finish_reason"], last["cut_by"]) == ("length", "deadline")


def test_cached_tokens_are_those_of_the_least_lucky_answer(sample_model):
    async def script(work):
        cached = 5 if work.id.endswith("-0") else 9
        yield Final("x", usage=Usage(len(work.tokens), 1, cached))

    usage = post(sample_model, script, n=2).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 5
