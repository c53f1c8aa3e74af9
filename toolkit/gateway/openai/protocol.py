"""uvicorn's HTTP/1.1 protocol, with small buffers and a way to break a connection off.

ASGI has no word for that: an application that returns early makes uvicorn *close*, which waits
until the client has taken what is buffered; one that reads nothing would keep its memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from toolkit.gateway.openai.errors import error_body
from toolkit.gateway.openai.exchange import ABORT
from toolkit.gateway.work import GatewayError

WRITE_BUFFER = 16 * 2**10
"""Bytes that wait in one connection before the application feels it."""

_AT_ONCE = struct.pack("ii", 1, 0)


class GatewayProtocol(HttpToolsProtocol):
    """For ``uvicorn.Config(http=GatewayProtocol)``.

    Beside :data:`ABORT` it lets go of clients that do not send the head of a request, and of
    those that do not take the end of an answer, which uvicorn waits for without end.
    """

    patience = 30.0
    """Seconds for either."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """asyncio: connected."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: disconnected."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """httptools: a request begins."""
        super().on_message_begin()
        self._await_head()
        extensions: dict[str, Any] = {ABORT: {"abort": self._abort}}
        self.scope["extensions"] = extensions

    def on_headers_complete(self) -> None:
        """httptools: the head of a request has come."""
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """uvicorn: the application has sent all of an answer."""
        super().on_response_complete()
        self._await_taken(self.transport.get_write_buffer_size())

    def send_400_response(self, msg: str) -> None:
        """uvicorn: what came is no HTTP. This is the one answer that no application gives."""
        body = error_body(GatewayError(400, msg, code="invalid_http"))
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _await_head(self) -> None:
        self._stop_waiting()
        self._head_timer = self.loop.call_later(self.patience, self._abort)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _await_taken(self, left: int) -> None:
        if left:
            self.loop.call_later(self.patience, self._check_taken, left)

    def _check_taken(self, left: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now >= left and self.cycle.response_complete:
            self._abort()
        elif now:
            self._await_taken(now)

    def _abort(self) -> None:
        """Break off; the kernel as well forgets what the client has not taken."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            # It may be closed already, by us or by the client: uvloop says ValueError then.
            with contextlib.suppress(OSError, ValueError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()
