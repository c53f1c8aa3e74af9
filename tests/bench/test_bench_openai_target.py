"""The client of OpenAI's API against a server of a few lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from toolkit.bench.openai_http import OpenAiTarget
from toolkit.bench.records import Request, RequestRecord, clock
from toolkit.errors import ServerError

MODELS = json.dumps({"data": [{"id": "m"}]}).encode()
Reply = Callable[[asyncio.StreamWriter, dict[str, Any]], Awaitable[None]]


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def text(words: str, finish: str | None = None) -> bytes:
    return event(choices=[{"text": words, "finish_reason": finish}])


USAGE = event(
    choices=[],
    usage={
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
)
DONE = b"data: [DONE]\n\n"


class Server:
    """Answers /v1/models, and completions as the test says."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.heads: list[str] = []
        self.bodies: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except asyncio.IncompleteReadError:
                writer.close()
                return
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            body = await reader.readexactly(length)
            if head.startswith("GET /v1/models"):
                size = len(MODELS)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + MODELS)
                continue
            self.heads.append(head)
            self.bodies.append(json.loads(body))
            await self.reply(writer, self.bodies[-1])


def stream(*events: bytes, split: int = 10_000) -> Reply:
    async def reply(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        whole = b"".join(events)
        for start in range(0, len(whole), split):
            part = whole[start : start + split]
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.write(b"0\r\n\r\n")

    return reply


def refuse(status: int, message: str) -> Reply:
    async def reply(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        data = json.dumps({"error": {"message": message}}).encode()
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data))

    return reply


def ask(server: Server, *requests: Request, model: str = "m", key: str | None = None) -> Any:
    async def work() -> list[RequestRecord]:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        target = OpenAiTarget("127.0.0.1", port, model, key=key, timeout=5)
        await target.open()
        try:
            return [await target.generate(each) for each in requests]
        finally:
            await target.close()
            listening.close()

    return asyncio.run(work())


def request(**fields: Any) -> Request:
    return Request(number=1, prompt="hello", max_tokens=4, intended=clock(), **fields)


@pytest.mark.parametrize("split", [1, 7, 10_000])
def test_text_and_usage_are_read_however_they_arrive(split: int) -> None:
    server = Server(stream(text("one "), text("two"), text("", "length"), USAGE, DONE, split=split))
    record, again = ask(server, request(), request())
    for each in (record, again):
        assert each.ok, each.failure
        assert each.text == "one two"
        assert len(each.responses) == 2
        assert each.ended == each.responses[-1]
        usage = each.usage
        assert (usage.prompt_tokens, usage.output_tokens, usage.cached_tokens) == (9, 3, 4)
        assert usage.finish_reason == "length"


def test_what_is_asked_for() -> None:
    server = Server(stream(text("x"), DONE))
    ask(server, request(min_tokens=4, request_class="batch"), key="tk_a")
    assert "Authorization: Bearer tk_a\r\n" in server.heads[0]
    assert "X-Request-Class: batch\r\n" in server.heads[0]
    assert server.bodies[0] == {
        "model": "m",
        "prompt": "hello",
        "max_tokens": 4,
        "min_tokens": 4,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (refuse(429, "too many"), "overload", "too many"),
        (refuse(400, "prompt: too long"), "refused", "too long"),
        (refuse(500, "oh"), "server", "oh"),
        (refuse(504, "late"), "timeout", "late"),
        (stream(text("x"), event(error={"message": "it broke"})), "server", "it broke"),
        (stream(text("x")), "protocol", "without [DONE]"),
        (stream(b"data: {\n\n", DONE), "server", "not JSON"),
    ],
)
def test_failures_are_told_apart(reply: Reply, kind: str, message: str) -> None:
    (record,) = ask(Server(reply), request())
    assert record.failure.kind == kind
    assert message in record.failure.message


def test_a_connection_that_breaks_is_one() -> None:
    async def reply(writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:")
        writer.close()

    (record,) = ask(Server(reply), request())
    assert record.failure.kind == "connection"


def test_a_model_that_is_not_served() -> None:
    with pytest.raises(ServerError, match="does not serve other") as caught:
        ask(Server(stream()), model="other")
    assert caught.value.hint == "it serves m"
