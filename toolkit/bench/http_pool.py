"""Connections of one HTTP target: one for each running request, used again while they are kept."""

from __future__ import annotations

import asyncio
from typing import Protocol

from toolkit.bench.http1 import Exchange, HttpConnection
from toolkit.bench.records import RequestRecord, clock

_ASK_TIMEOUT = 10.0
_KEPT = 2.0
"""Seconds for which an idle connection is trusted. Servers close theirs after a few (uvicorn after
five), and a request that meets that is lost through no fault of theirs or ours (RFC 9112, 9.5)."""


class Answer(Exchange, Protocol):
    """Fills the record of one request, and says when it is complete."""

    @property
    def record(self) -> RequestRecord:
        """What is filled."""

    @property
    def done(self) -> asyncio.Future[None]:
        """Set when the record is complete."""

    def expire(self, timeout: float) -> None:
        """It took longer than ``timeout`` seconds."""


class HttpPool:
    """Connections to one host and port."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[tuple[HttpConnection, float]] = []

    async def get(self, path: str, *, headers: str = "") -> tuple[int, bytes]:
        """Status and body.

        Raises:
            OSError: nobody listens there, or the connection broke.
            asyncio.TimeoutError: no answer.
        """
        connection = await self._take()
        asked = connection.request("GET", path, headers=headers)
        found = await asyncio.wait_for(asked, _ASK_TIMEOUT)
        self._give_back(connection)
        return found

    async def post(
        self, path: str, body: bytes, answer: Answer, timeout: float, *, headers: str = ""
    ) -> RequestRecord:
        """Send ``body`` and wait until ``answer`` is complete; a failure is in its record.

        When cancelled, the connection is broken off: a server takes that as a cancellation.
        """
        loop = asyncio.get_running_loop()
        try:
            connection = await self._take()
        except OSError as error:
            answer.record.fail("connection", str(error))
            return answer.record
        answer.record.sent = clock()
        connection.send("POST", path, body, answer, headers=headers)
        timer = loop.call_later(timeout, answer.expire, timeout)
        try:
            await answer.done
        finally:
            timer.cancel()
            self._give_back(connection)
        return answer.record

    def close(self) -> None:
        """Close all connections."""
        for connection, _ in self._idle:
            connection.close()
        self._idle.clear()

    def _give_back(self, connection: HttpConnection) -> None:
        if connection.idle:
            self._idle.append((connection, clock()))
        else:
            connection.abort()

    async def _take(self) -> HttpConnection:
        while self._idle:
            connection, since = self._idle.pop()
            if connection.idle and clock() - since < _KEPT:
                return connection
            connection.close()
        return await HttpConnection.connect(self._host, self._port)
