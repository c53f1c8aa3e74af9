"""A lean HTTP/1.1 client for streamed answers (RFC 9112) on asyncio: one request at a time.

Like :mod:`toolkit.bench.http2` it does only what a load generator needs, because it shares
the machine with the server under test: POST and GET, bodies by length or in chunks, kept-alive
connections.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from toolkit.bench.records import clock
from toolkit.bench.target import authority


class Exchange(Protocol):
    """Receives the answer to one request; runs on the event loop and must be quick."""

    def on_body(self, data: bytes, when: float) -> None:
        """Some of the body, without its framing."""

    def on_end(self, status: int, error: str) -> None:
        """The answer is complete; with an ``error``, it broke off (status 0: before it began)."""


class HttpConnection(asyncio.Protocol):
    """One connection. Make it with :meth:`connect`; use it again when :attr:`idle`."""

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._exchange: Exchange | None = None
        self.usable = False
        self._rest = b""
        self._status = 0
        self._chunked = False
        self._left = 0

    @classmethod
    async def connect(cls, host: str, port: int) -> HttpConnection:
        """Open a connection.

        Raises:
            OSError: nobody listens there.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(authority(host, port)), host, port)
        return connection

    @property
    def idle(self) -> bool:
        """Whether another request may be sent on it."""
        return self.usable and self._exchange is None

    def send(
        self, method: str, path: str, body: bytes, exchange: Exchange, *, headers: str = ""
    ) -> None:
        """Send a request whose answer goes to ``exchange``; ``headers`` are whole lines."""
        self._reset()
        self._exchange = exchange
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._authority}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        )
        self._transport.write(head.encode() + body)

    async def request(
        self, method: str, path: str, body: bytes = b"", *, headers: str = ""
    ) -> tuple[int, bytes]:
        """Send a request and wait for the whole answer: its status and body.

        Raises:
            ConnectionError: it broke off.
        """
        whole = _Whole(asyncio.get_running_loop().create_future())
        self.send(method, path, body, whole, headers=headers)
        return await whole.result

    def abort(self) -> None:
        """Break the connection off: a server takes that as a cancellation."""
        self._exchange = None
        self.usable = False
        self._transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self.usable = False
        self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.usable = True

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: disconnected."""
        self.usable = False
        self._finish(str(exc) if exc else "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have arrived."""
        now = clock()
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not self._status:
            head, separator, data = data.partition(b"\r\n\r\n")
            if not separator:
                self._rest = head
                return
            try:
                self._read_head(head.decode("latin-1"))
            except (ValueError, IndexError):
                self.close()
                self._finish("the server sent malformed HTTP")
                return
        if self._chunked:
            self._read_chunks(data, now)
        else:
            self._read_plain(data, now)

    def _reset(self) -> None:
        self._rest = b""
        self._status = 0
        self._chunked = False
        self._left = 0

    def _read_head(self, head: str) -> None:
        lines = head.split("\r\n")
        pairs = (line.lower().partition(":") for line in lines[1:])
        fields = {name: value.strip() for name, _, value in pairs}
        self._chunked = fields.get("transfer-encoding") == "chunked"
        self._left = int(fields.get("content-length", "0"))
        if fields.get("connection") == "close":
            self.usable = False
        self._status = int(lines[0].split(" ")[1])

    def _read_plain(self, data: bytes, now: float) -> None:
        if data and self._exchange:
            self._exchange.on_body(data, now)
        self._left -= len(data)
        if self._left <= 0:
            self._finish("")

    def _read_chunks(self, data: bytes, now: float) -> None:
        position = 0
        while True:
            line = data.find(b"\r\n", position)
            if line < 0:
                break
            try:
                size = int(data[position:line].split(b";")[0], 16)
            except ValueError:
                self.close()
                self._finish("the server sent a malformed chunk")
                return
            stop = line + 2 + size
            if len(data) < stop + 2:
                break
            if size == 0:
                self._finish("")
                return
            if self._exchange:
                self._exchange.on_body(data[line + 2 : stop], now)
            position = stop + 2
        self._rest = data[position:]

    def _finish(self, error: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange:
            exchange.on_end(self._status, error)


class _Whole:
    def __init__(self, result: asyncio.Future[tuple[int, bytes]]) -> None:
        self.result = result
        self._body = b""

    def on_body(self, data: bytes, when: float) -> None:
        self._body += data

    def on_end(self, status: int, error: str) -> None:
        if self.result.done():
            return
        if error:
            self.result.set_exception(ConnectionError(error))
        else:
            self.result.set_result((status, self._body))
