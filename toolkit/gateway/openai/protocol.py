"""uvicorn's HTTP/1.1 protocol, with small buffers and a way to break a connection off.

ASGI has no word for that: an application that returns early makes uvicorn *close*, which waits
until the client has taken what is buffered; one that reads nothing would keep its memory.
"""

from __future__ import annotations

import asyncio
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
    """For ``uvicorn.Config(http=GatewayProtocol)``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """asyncio: connected."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)

    def on_message_begin(self) -> None:
        """httptools: a request begins."""
        super().on_message_begin()
        extensions: dict[str, Any] = {ABORT: {"abort": self._abort}}
        self.scope["extensions"] = extensions

    def send_400_response(self, msg: str) -> None:
        """uvicorn: what came is no HTTP. This is the one answer that no application gives."""
        body = error_body(GatewayError(400, msg, code="invalid_http"))
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _abort(self) -> None:
        """Break off; the kernel as well forgets what the client has not taken."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()
