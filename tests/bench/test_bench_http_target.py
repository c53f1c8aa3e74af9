"""The HTTP client against a server that answers with given bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from toolkit.bench.records import Request, RequestRecord, clock
from toolkit.bench.triton_http import TritonHttpTarget
from toolkit.errors import ServerError

SERVER = {"name": "double", "version": "1"}
MODEL = {"inputs": [{"name": name} for name in ("text_input", "max_tokens", "stream")]}
Answer = Callable[[dict[str, object]], list[bytes]]


def whole(body: object, status: str = "200 OK") -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(data), data)


def chunked(*events: object, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(map(chunk, events)) + b"0\r\n\r\n"


def chunk(event: object) -> bytes:
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def run_requests(
    answer: Answer, *prompts: str, stream: bool = True, timeout: float = 20
) -> tuple[list[RequestRecord], int]:
    """The records, and how many connections it took."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(size)
                path = head.split(" ")[1]
                if path == "/v2":
                    pieces = [whole(SERVER)]
                elif "generate" not in path:
                    pieces = [whole(MODEL)]
                else:
                    pieces = answer(json.loads(body))
                for piece in pieces:
                    if piece == b"close":
                        writer.close()
                        return
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except asyncio.IncompleteReadError:
            writer.close()

    async def work() -> list[RequestRecord]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        target = TritonHttpTarget("127.0.0.1", port, "model", stream=stream, timeout=timeout)
        await target.open()
        records = []
        for number, prompt in enumerate(prompts):
            records.append(await target.generate(Request(number, prompt, 4, clock())))
        await target.close()
        server.close()
        return records

    return asyncio.run(work()), connections


def test_a_stream_is_read_and_its_connection_used_again() -> None:
    events = [
        {"text_output": "Grü"},
        {"text_output": "ße"},
        {"text_output": "", "num_output_tokens": 5, "num_cached_tokens": [[2]]},
    ]
    (first, second), connections = run_requests(lambda body: [chunked(*events)], "a", "b")
    for record in (first, second):
        assert record.ok
        assert record.text == "Grüße"
        assert len(record.responses) == 2
        assert record.usage.output_tokens == 5
        assert record.usage.cached_tokens == 2
        assert record.ended >= record.responses[-1]
    assert connections == 1


def test_a_stream_may_come_byte_by_byte() -> None:
    data = chunked({"text_output": "one "}, {"text_output": "two", "num_output_tokens": 2})
    pieces = [data[index : index + 1] for index in range(len(data))]
    (record,), _ = run_requests(lambda body: pieces, "a")
    assert record.text == "one two"
    assert record.usage.output_tokens == 2


def test_one_answer_without_streaming() -> None:
    asked: list[dict[str, object]] = []

    def answer(body: dict[str, object]) -> list[bytes]:
        asked.append(body)
        return [whole({"text_output": "all of it", "num_output_tokens": 3})]

    (record,), _ = run_requests(answer, "hello", stream=False)
    assert asked == [{"text_input": "hello", "max_tokens": 4, "stream": False}]
    assert record.text == "all of it"
    assert record.first == record.ended


@pytest.mark.parametrize(
    ("pieces", "kind", "message"),
    [
        ([chunked({"error": "no"}, status="400 Bad Request")], "refused", "no"),
        ([chunked({"text_output": "x"}, {"error": "broke"})], "server", "broke"),
        ([chunked({"error": "queue is full"}, status="503 Unavailable")], "overload", "full"),
        ([whole({"error": "lost"}, "500 Oops")], "server", "500"),
        ([chunked()], "protocol", "no response"),
        ([chunked({"text_output": "x"})[:-5], b"close"], "connection", "closed"),
        ([b"close"], "connection", "closed"),
        ([b"nonsense\r\n\r\n"], "connection", "malformed"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], "connection", "chunk"),
    ],
)
def test_failures_have_their_kind(pieces: list[bytes], kind: str, message: str) -> None:
    (record,), _ = run_requests(lambda body: pieces, "a")
    assert record.failure
    assert record.failure.kind == kind
    assert message in record.failure.message


def test_a_timeout_ends_the_request_and_the_next_one_works() -> None:
    def answer(body: dict[str, object]) -> list[bytes]:
        if body["text_input"] == "slow":
            return [chunked({"text_output": "x"})[:-5]]
        return [chunked({"text_output": "y", "num_output_tokens": 1})]

    (slow, fine), _ = run_requests(answer, "slow", "quick", timeout=0.2)
    assert slow.failure
    assert slow.failure.kind == "timeout"
    assert fine.ok


def test_nobody_listening_is_a_server_error(unused_port: int) -> None:
    target = TritonHttpTarget("127.0.0.1", unused_port, "model")
    with pytest.raises(ServerError):
        asyncio.run(target.open())
