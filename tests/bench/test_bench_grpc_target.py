"""The lean gRPC client against grpcio's server, and against bytes that no server should send."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_double import error, response, serving

from toolkit.bench.http2 import GrpcConnection
from toolkit.bench.records import Request, RequestRecord, clock
from toolkit.bench.triton_grpc import TritonGrpcTarget
from toolkit.errors import ServerError, SpecError


def ask(number: int = 1, prompt: str = "hello") -> Request:
    return Request(number=number, prompt=prompt, max_tokens=4, intended=clock())


def run_requests(port: int, *requests: Request, timeout: float = 20) -> list[RequestRecord]:
    async def work() -> list[RequestRecord]:
        target = TritonGrpcTarget("127.0.0.1", port, "model", timeout=timeout)
        await target.open()
        try:
            return list(await asyncio.gather(*map(target.generate, requests)))
        finally:
            await target.close()

    return asyncio.run(work())


def words(request: Any, context: Any) -> Iterator[Any]:
    yield response("one ")
    yield response("two ")
    yield response(
        "three",
        final=True,
        num_output_tokens=7,
        num_input_tokens=3,
        finish_reason="length",
        arrival_time_ns=1_000_000_000,
        first_scheduled_time_ns=1_004_000_000,
        first_token_time_ns=1_010_000_000,
    )


def test_text_usage_and_times_are_read() -> None:
    with serving(words) as (port, seen):
        (record,) = run_requests(port, ask(prompt="Grüße"))
    assert record.ok
    assert record.text == "one two three"
    assert len(record.responses) == 3
    assert record.responses == sorted(record.responses)
    assert record.request.intended <= record.sent <= record.responses[0]
    assert record.ended == record.responses[-1]
    assert (record.usage.output_tokens, record.usage.prompt_tokens) == (7, 3)
    assert record.usage.queue_time_ms == pytest.approx(4)
    assert record.usage.ttft_ms == pytest.approx(10)
    assert record.usage.finish_reason == "length"
    (request,) = seen.requests
    assert request.raw_input_contents[0][4:].decode() == "Grüße"
    assert [tensor.name for tensor in request.inputs] == ["text_input", "max_tokens", "stream"]
    assert list(request.inputs[0].shape) == [1, 1]


def test_a_model_without_batch_dimension_gets_flat_tensors() -> None:
    with serving(words, batched=False) as (port, seen):
        run_requests(port, ask())
    assert list(seen.requests[0].inputs[0].shape) == [1]


def test_an_empty_final_response_adds_no_text() -> None:
    def script(request: Any, context: Any) -> Iterator[Any]:
        yield response("all")
        yield response(None, final=True)

    with serving(script) as (port, _):
        (record,) = run_requests(port, ask())
    assert record.ok
    assert len(record.responses) == 1
    assert record.ended >= record.responses[0]


def test_a_server_without_the_final_flag_ends_with_its_stream() -> None:
    def script(request: Any, context: Any) -> Iterator[Any]:
        yield response("all", final=None)

    with serving(script) as (port, _):
        (record,) = run_requests(port, ask())
    assert record.ok
    assert record.text == "all"


def test_a_stream_without_final_response_is_a_failure() -> None:
    def script(request: Any, context: Any) -> Iterator[Any]:
        yield response("half", final=False)

    with serving(script) as (port, _):
        (record,) = run_requests(port, ask())
    assert record.failure
    assert record.failure.kind == "protocol"


def test_failures_have_their_kind_and_message() -> None:
    def script(request: Any, context: Any) -> Iterator[Any]:
        prompt = request.raw_input_contents[0][4:].decode()
        if prompt == "full":
            yield error("queue is full, retry later")
        elif prompt == "broken":
            yield response("some")
            yield error("engine failed: ungültig")
        else:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "größer als 100%\nerlaubt")

    with serving(script) as (port, _):
        full, broken, refused = run_requests(
            port, ask(1, "full"), ask(2, "broken"), ask(3, "refused")
        )
    assert full.failure
    assert full.failure.kind == "overload"
    assert broken.failure
    assert (broken.failure.kind, broken.failure.message) == ("server", "engine failed: ungültig")
    assert broken.text == "some"
    assert refused.failure
    assert (refused.failure.kind, refused.failure.message) == (
        "refused",
        "größer als 100%\nerlaubt",
    )


def test_a_timeout_cancels_at_the_server() -> None:
    gone = threading.Event()

    def script(request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(gone.set)
        yield response("first")
        gone.wait(30)

    with serving(script) as (port, _):
        (record,) = run_requests(port, ask(), timeout=0.2)
        assert gone.wait(10)
    assert record.failure
    assert record.failure.kind == "timeout"
    assert record.text == "first"


def test_cancelling_a_request_cancels_at_the_server() -> None:
    started, gone = threading.Event(), threading.Event()

    def script(request: Any, context: Any) -> Iterator[Any]:
        context.add_callback(gone.set)
        started.set()
        yield response("first")
        gone.wait(30)

    async def work(port: int) -> None:
        target = TritonGrpcTarget("127.0.0.1", port, "model")
        await target.open()
        task = asyncio.create_task(target.generate(ask()))
        while not started.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(gone.wait, 10)
        await target.close()

    with serving(script) as (port, _):
        asyncio.run(work(port))


def test_prompts_far_above_the_flow_control_window_arrive_whole() -> None:
    def script(request: Any, context: Any) -> Iterator[Any]:
        yield response(str(len(request.raw_input_contents[0])), final=True)

    prompts = ["x" * 3_000_000, "y" * 70_000, "z"]
    with serving(script) as (port, _):
        records = run_requests(port, *(ask(i, prompt) for i, prompt in enumerate(prompts)))
    assert [record.text for record in records] == [str(len(p) + 4) for p in prompts]


def test_responses_above_a_frame_and_beyond_the_window_arrive_whole() -> None:
    big = "ü" * 400_000

    def script(request: Any, context: Any) -> Iterator[Any]:
        for _ in range(30):
            yield response(big)
        yield response("end", final=True)

    with serving(script) as (port, _):
        (record,) = run_requests(port, ask(), timeout=60)
    assert record.ok
    assert len(record.responses) == 31
    assert record.text == big * 30 + "end"


def test_more_requests_than_the_server_allows_streams_wait_their_turn() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def script(request: Any, context: Any) -> Iterator[Any]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        yield response("a")
        # Before the last response: once that is out, the client may begin the next request.
        with lock:
            running -= 1
        yield response("b", final=True)

    with serving(script, max_streams=2) as (port, seen):
        records = run_requests(port, *(ask(number) for number in range(40)))
    assert all(record.ok for record in records)
    assert len(seen.requests) == 40
    assert most <= 2


def test_many_requests_on_one_connection_keep_their_answers() -> None:
    def script(request: Any, context: Any) -> Iterator[Any]:
        for _ in range(20):
            yield response(request.id + ",")
        yield response("", final=True)

    with serving(script) as (port, _):
        records = run_requests(port, *(ask(number) for number in range(100)))
    assert [record.text for record in records] == [f"{n}," * 20 for n in range(100)]


def test_a_server_that_dies_fails_what_runs_and_is_found_again() -> None:
    halt = threading.Event()

    def script(request: Any, context: Any) -> Iterator[Any]:
        yield response("a")
        halt.wait(1)

    async def work() -> tuple[RequestRecord, RequestRecord]:
        with serving(script) as (port, seen):
            target = TritonGrpcTarget("127.0.0.1", port, "model")
            await target.open()
            task = asyncio.create_task(target.generate(ask()))
            while not seen.requests:
                await asyncio.sleep(0.01)
        first = await task
        second = await target.generate(ask())
        await target.close()
        return first, second

    first, second = asyncio.run(work())
    for record in (first, second):
        assert record.failure
        assert record.failure.kind == "connection"


def test_nobody_listening_is_a_server_error(unused_port: int) -> None:
    with pytest.raises(ServerError) as caught:
        run_requests(unused_port, ask())
    assert caught.value.exit_code == 6
    assert str(unused_port) in str(caught.value.where)


def test_a_model_without_a_prompt_input_is_refused() -> None:
    with serving(words, inputs={"input_ids": "INT32"}) as (port, _), pytest.raises(SpecError):
        run_requests(port, ask())


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload).to_bytes(3, "big")
    return size + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


class _Heard:
    """Keeps what a call hears."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def on_message(self, message: bytes, when: float) -> None:
        self.messages.append(message)

    def on_end(self, status: int, message: str) -> None:
        self.end.set_result((status, message))


def converse(*chunks: bytes) -> tuple[list[bytes], tuple[int, str]]:
    """What one call hears from a server that answers with ``chunks``, whatever is sent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(4, 0, 0))
        await reader.readuntil(b"question")
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0.01)
        await reader.read(1 << 20)
        writer.close()

    async def work() -> tuple[list[bytes], tuple[int, str]]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = await GrpcConnection.connect("127.0.0.1", port)
        heard = _Heard()
        connection.call("/x", b"question", heard)
        end = await asyncio.wait_for(heard.end, 10)
        connection.close()
        server.close()
        return heard.messages, end

    return asyncio.run(work())


# HPACK: ":status: 200" indexed, then "grpc-status: 0" as a literal.
STATUS_200 = b"\x88"
GRPC_OK = b"\x00\x0bgrpc-status\x010"
HELLO = b"\0\0\0\0\5hello"


def test_frames_may_come_in_any_pieces() -> None:
    stream = (
        frame(4, 0, 0)
        + frame(1, 4, 1, STATUS_200)
        + frame(0, 0, 1, HELLO[:3])
        + frame(0, 0, 1, HELLO[3:] + HELLO)
        + frame(1, 5, 1, GRPC_OK)
    )
    expected = ([b"hello", b"hello"], (0, ""))
    assert converse(stream) == expected
    assert converse(*(stream[i : i + 1] for i in range(len(stream)))) == expected


def test_padding_priority_continuation_and_unknown_frames_are_understood() -> None:
    stream = (
        frame(4, 0, 0)
        + frame(99, 0, 0, b"from the future")
        + frame(1, 8 | 32, 1, b"\2" + b"\0\0\0\0\x10" + STATUS_200 + b"\0\0")
        + frame(9, 4, 1, b"\x00\x01a\x01b")
        + frame(0, 8, 1, b"\4" + HELLO + b"\0\0\0\0")
        + frame(1, 1, 1, GRPC_OK[:5])
        + frame(9, 4, 1, GRPC_OK[5:])
    )
    assert converse(stream) == ([b"hello"], (0, ""))


def refusing(times: int, *, cancel: bool = False) -> tuple[int, list[tuple[int, str]]]:
    """Calls that a server gets that refuses the first ``times`` unseen; the ends that one hears."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(4, 0, 0))
        for call in range(times + 1):
            await reader.readuntil(b"question")
            seen.append(call)
            stream = 2 * call + 1
            if call < times:
                writer.write(frame(3, 0, stream, b"\0\0\0\7"))
            else:
                ok = frame(0, 0, stream, HELLO) + frame(1, 5, stream, GRPC_OK)
                writer.write(frame(1, 4, stream, STATUS_200) + ok)
        await reader.read(1 << 20)
        writer.close()

    seen: list[int] = []

    async def work() -> list[tuple[int, str]]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        connection = await GrpcConnection.connect("127.0.0.1", server.sockets[0].getsockname()[1])
        heard = _Heard()
        identity = connection.call("/x", b"question", heard)
        if cancel:
            while len(seen) < 2:
                await asyncio.sleep(0.001)
            connection.cancel(identity)
            await asyncio.sleep(0.1)
        else:
            await asyncio.wait_for(heard.end, 10)
            assert heard.messages == [b"hello"]
        connection.close()
        server.close()
        return [heard.end.result()] if heard.end.done() else []

    ends = asyncio.run(work())
    return len(seen), ends


def test_a_call_that_was_refused_unseen_is_sent_again() -> None:
    assert refusing(3) == (4, [(0, "")])


def test_a_call_that_is_sent_again_can_still_be_taken_back() -> None:
    calls, ends = refusing(1000, cancel=True)
    assert calls < 20
    assert ends == []


@pytest.mark.parametrize(
    ("stream", "status", "words"),
    [
        (frame(3, 0, 1, b"\0\0\0\x0b"), 14, "reset"),
        (frame(7, 0, 0, b"\0\0\0\0\0\0\0\0"), 14, "shutting down"),
        (frame(1, 5, 1, b"\x8d"), 14, "HTTP status 404"),
        (frame(1, 4, 1, STATUS_200) + frame(0, 1, 1, HELLO), 13, "without a status"),
        (frame(1, 4, 1, STATUS_200) + frame(0, 0, 1, b"\1\0\0\0\1x"), 13, "compressed"),
        (frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"), 14, "malformed"),
        (frame(8, 0, 0, b"\0"), 14, "malformed"),
        (frame(3, 0, 1, b""), 14, "malformed"),
    ],
)
def test_bad_answers_end_the_call(stream: bytes, status: int, words: str) -> None:
    _, (found, message) = converse(frame(4, 0, 0) + stream)
    assert found == status
    assert words in message
