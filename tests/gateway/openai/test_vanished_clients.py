"""Clients that leave, read slowly or not at all: they take nothing from the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket

import httpx
import pytest
import uvloop
from openai_stand_in import Scripted, said, serving

from toolkit.gateway.openai import ApiSettings, GatewayProtocol, create_app
from toolkit.gateway.work import Final, Piece, Usage

BODY = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 100}


@pytest.fixture(autouse=True)
def _no_complaints(caplog):
    """A client that behaves badly is nothing that the server logs an error about."""
    yield
    assert [
        record for record in caplog.get_records("call") if record.levelno >= logging.ERROR
    ] == []


class Active:
    """Counts the requests that the application is busy with."""

    def __init__(self, app):
        self._app = app
        self.requests = 0
        self.seen = False

    async def __call__(self, scope, receive, send):
        self.requests += 1
        self.seen = True
        try:
            await self._app(scope, receive, send)
        finally:
            self.requests -= 1


def application(model, generator, **settings):
    return Active(create_app({model.name: model}, generator, settings=ApiSettings(**settings)))


async def until(condition):
    """Wait for it; the test's own time limit ends what never comes."""
    while not condition():
        await asyncio.sleep(0.01)


async def ask(port, *, receive_buffer=None, **fields):
    """Send a request over a raw connection and read nothing."""
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port))
    body = json.dumps({**BODY, **fields}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    await loop.sock_sendall(connection, head.encode() + body)
    return connection


async def read_on(connection, marker=b"data: [DONE]"):
    """Read until ``marker`` has come."""
    loop, data = asyncio.get_running_loop(), bytearray()
    while marker not in data[-65536:]:
        part = await loop.sock_recv(connection, 32768)
        if not part:
            break
        data += part
    return bytes(data)


def events(data):
    """The text of every event in a raw chunked answer."""
    found = []
    for line in data.split(b"\n"):
        if line.startswith(b"data: {"):
            choice = json.loads(line[6:])["choices"][0]
            found.append(choice["delta"].get("content") or "")
    return found


async def endless(work):
    while True:
        yield Piece("word ")
        await asyncio.sleep(0.001)


async def silent(work):
    await asyncio.Event().wait()
    yield Piece("never")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("script", [endless, silent])
def test_a_client_that_leaves_takes_its_request_back(sample_model, script, stream):
    generator = Scripted(script)
    app = application(sample_model, generator)

    async def main():
        async with serving(app) as port:
            connection = await ask(port, stream=stream, n=3)
            await until(lambda: generator.running == 3)
            connection.close()
            await until(lambda: generator.running == 0 and app.requests == 0)

    uvloop.run(main())
    assert generator.ended == 3


def test_a_client_that_leaves_after_the_first_token_takes_its_request_back(sample_model):
    generator = Scripted(endless)

    async def main():
        async with serving(application(sample_model, generator)) as port:
            connection = await ask(port, stream=True)
            await read_on(connection, b"word")
            connection.close()
            await until(lambda: generator.running == 0)

    uvloop.run(main())


def test_many_clients_that_leave_leave_nothing_behind(sample_model):
    generator = Scripted(endless)
    app = application(sample_model, generator)

    async def main():
        async with serving(app) as port:
            connections = await asyncio.gather(*(ask(port, stream=True) for _ in range(100)))
            await until(lambda: generator.running == 100)
            for connection in connections:
                connection.close()
            await until(lambda: generator.running == 0 and app.requests == 0)

    uvloop.run(main())
    assert len(generator.asked) == 100


def test_a_client_that_stops_sending_its_body_is_let_go(sample_model):
    async def main():
        app = application(sample_model, Scripted(said("x")), stall_timeout=0.2)
        async with serving(app) as port:
            connection = await ask(port)
            await read_on(connection, b"usage")
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(
                connection,
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{",
            )
            return await read_on(connection, b"never")

    answer = uvloop.run(main())
    assert answer.startswith(b"HTTP/1.1 408 ")


class Impatient(GatewayProtocol):
    patience = 0.2


@pytest.mark.parametrize("begun", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost:"])
def test_a_client_that_sends_no_whole_head_is_let_go(sample_model, begun):
    async def main():
        app = application(sample_model, Scripted(said("x")))
        async with serving(app, http=Impatient) as port:
            first = await ask(port)
            assert b"usage" in await read_on(first, b"usage")
            loop = asyncio.get_running_loop()
            with socket.socket() as idle:
                idle.setblocking(False)
                await loop.sock_connect(idle, ("127.0.0.1", port))
                await loop.sock_sendall(idle, begun)
                with contextlib.suppress(ConnectionResetError):
                    assert await read_on(idle, b"never") == b""

    uvloop.run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_a_reader_that_does_not_take_the_end_is_let_go(sample_model, stream):
    size = 2**23

    async def script(work):
        yield Final("x" * size, usage=Usage(0, 1))

    app = application(sample_model, Scripted(script), max_buffer=2 * size)

    async def main():
        async with serving(app, http=Impatient) as port:
            connection = await ask(port, stream=stream, receive_buffer=4096)
            await until(lambda: generator_done(app))
            await asyncio.sleep(1)
            with pytest.raises(ConnectionResetError):
                await read_on(connection, b"never")

    def generator_done(app):
        return app.requests == 0 and app.seen

    uvloop.run(main())


class Patient(GatewayProtocol):
    patience = 1.0


def test_a_reader_that_is_slow_at_the_end_is_waited_for(sample_model):
    size, waits = 2**23, []

    class Watched(Patient):
        def _check_taken(self, left):
            waits.append(left)
            super()._check_taken(left)

    async def script(work):
        yield Final("x" * size, usage=Usage(0, 1))

    async def main():
        async with serving(application(sample_model, Scripted(script)), http=Watched) as port:
            connection = await ask(port, receive_buffer=65536)
            loop, data = asyncio.get_running_loop(), bytearray()
            while b"usage" not in data[-1000:]:
                data += await loop.sock_recv(connection, 32768)
                await asyncio.sleep(0.005)
            return data

    assert uvloop.run(main()).count(b"x") >= size
    assert waits


def numbered(count, size):
    async def script(work):
        for number in range(count):
            yield Piece(f"{number:<{size}}")
            if number % 50 == 0:
                await asyncio.sleep(0)
        yield Final("", finish_reason="length", usage=Usage(0, count))

    return script


def test_a_slow_reader_gets_everything_in_fewer_events(sample_model):
    count, size = 3000, 2000
    generator = Scripted(numbered(count, size))
    app = application(sample_model, generator, max_buffer=2 * count * size)

    async def main():
        async with serving(app) as port:
            connection = await ask(port, stream=True, receive_buffer=65536)
            await until(lambda: generator.ended == 1)
            return await read_on(connection)

    texts = events(uvloop.run(main()))
    assert "".join(texts) == "".join(f"{number:<{size}}" for number in range(count))
    assert len(texts) < count


def test_a_reader_that_leaves_too_much_is_let_go(sample_model):
    async def plenty(work):
        while True:
            yield Piece("x" * 65536)
            await asyncio.sleep(0)

    generator = Scripted(plenty)
    app = application(sample_model, generator, max_buffer=200_000)

    async def main():
        async with serving(app) as port:
            connection = await ask(port, stream=True, receive_buffer=4096)
            await until(lambda: len(generator.asked) == 1)
            await until(lambda: generator.running == 0 and app.requests == 0)
            with pytest.raises(ConnectionResetError):
                await read_on(connection)

    uvloop.run(main())


@pytest.mark.parametrize("ends", [True, False])
def test_a_reader_that_takes_nothing_is_let_go(sample_model, ends):
    async def much(work):
        # More than the kernel keeps for a connection.
        for _ in range(200):
            yield Piece("x" * 65536)
        if not ends:
            await asyncio.Event().wait()
        yield Final("", usage=Usage(0, 200))

    generator = Scripted(much)
    app = application(sample_model, generator, max_buffer=10**9, stall_timeout=0.3)

    async def main():
        async with serving(app) as port:
            connection = await ask(port, stream=True, receive_buffer=4096)
            await until(lambda: len(generator.asked) == 1)
            await until(lambda: generator.running == 0 and app.requests == 0)
            with pytest.raises(ConnectionResetError):
                await read_on(connection, b"never")

    uvloop.run(main())


def test_slow_readers_do_not_hold_up_the_others(sample_model):
    async def much(work):
        if work.sampling.max_tokens == 1:
            yield Final("quick", usage=Usage(1, 1))
            return
        for _ in range(100):
            yield Piece("x" * 65536)
            await asyncio.sleep(0)
        await asyncio.Event().wait()

    app = application(sample_model, Scripted(much), max_buffer=10**9)

    async def main():
        async with serving(app) as port:
            slow = [await ask(port, stream=True, receive_buffer=4096) for _ in range(20)]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                for _ in range(20):
                    answer = await http.post(
                        "/v1/chat/completions", json={**BODY, "max_tokens": 1}, timeout=60
                    )
                    assert answer.json()["choices"][0]["message"]["content"] == "quick"
            for connection in slow:
                connection.close()
            await until(lambda: app.requests == 0)

    uvloop.run(main())


def test_a_connection_is_used_again_after_a_stream(sample_model):
    async def main():
        async with serving(application(sample_model, Scripted(said("a", "b")))) as port:
            limits = httpx.Limits(max_connections=1)
            url = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=url, limits=limits) as http:
                for stream in (True, False, True, True):
                    answer = await http.post(
                        "/v1/chat/completions", json={**BODY, "stream": stream}
                    )
                    assert answer.status_code == 200
                    assert "connection" not in answer.headers

    uvloop.run(main())
