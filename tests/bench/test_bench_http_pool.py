"""Connections are used again, but none that the server may be about to close."""

from __future__ import annotations

import asyncio

import pytest

from toolkit.bench import http_pool
from toolkit.bench.http_pool import HttpPool


def test_a_connection_that_idled_for_long_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(http_pool, "clock", lambda: now)
    opened = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async def run() -> list[int]:
        nonlocal now
        seen = []
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        pool = HttpPool("127.0.0.1", server.sockets[0].getsockname()[1])
        for pause in (0.0, 1.0, 3.0):
            now += pause
            assert await pool.get("/") == (200, b"ok")
            seen.append(opened)
        pool.close()
        server.close()
        return seen

    assert asyncio.run(run()) == [1, 1, 2]
