"""A lean gRPC client for streams of many small responses: HTTP/2 (RFC 9113) on asyncio.

The load generator shares the machine with the server that it measures. grpcio hands every
response through threads and locks of its own, which costs more than twice of what reading
the frames here does (benchmarks/results holds the figures); so this speaks the part of
HTTP/2 that a gRPC client needs and nothing else: cleartext, requests of one message, no
compression. Framing of gRPC: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Protocol
from urllib.parse import unquote

from hpack import Decoder, HPACKError

from toolkit.bench.grpc_unary import OK as OK
from toolkit.bench.grpc_unary import GrpcError as GrpcError
from toolkit.bench.grpc_unary import Unary
from toolkit.bench.records import clock
from toolkit.bench.target import authority

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_MAX_STREAMS, _INITIAL_WINDOW, _MAX_FRAME = 3, 4, 5
_DEFAULT_WINDOW = 65_535
_LARGEST_WINDOW = 2**31 - 1
_REFILL = 2**24
_REFUSED, _CANCEL = 7, 8
_PATIENCE = 0.01
_GREETING_TIMEOUT = 10.0

INTERNAL, UNAVAILABLE = 13, 14
"""gRPC status codes this module gives or checks itself."""


class StreamHandler(Protocol):
    """Receives one call's responses; both methods run on the event loop and must be quick."""

    def on_message(self, message: bytes, when: float) -> None:
        """A response message, read at ``when``."""

    def on_end(self, status: int, message: str) -> None:
        """The call is over, with a gRPC status code."""


class _Stream:
    __slots__ = ("first_id", "handler", "headers", "partial", "request", "to_send", "window")

    def __init__(
        self, handler: StreamHandler, request: tuple[bytes, bytes], window: int, first_id: int
    ) -> None:
        self.handler = handler
        self.request = request
        self.first_id = first_id
        self.to_send = request[1]
        self.window = window
        self.partial = b""
        self.headers: dict[str, str] = {}


class GrpcConnection(asyncio.Protocol):
    """One connection that carries any number of calls at once. Make it with :meth:`connect`."""

    def __init__(self, authority: str) -> None:
        self._authority = authority.encode()
        self._greeted = asyncio.Event()
        self._streams: dict[int, _Stream] = {}
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._moved: dict[int, int] = {}
        self._decoder = Decoder()
        self._rest = b""
        self._next_id = 1
        self._block: tuple[int, int, bytes] | None = None
        self._window = _DEFAULT_WINDOW
        self._stream_window = _DEFAULT_WINDOW
        self._max_frame = 16_384
        self._max_streams = _LARGEST_WINDOW
        self._open_streams = 0
        self._unacknowledged = 0
        self.usable = False

    @classmethod
    async def connect(cls, host: str, port: int) -> GrpcConnection:
        """Open a connection and learn how many calls the server takes at once.

        A call sent before that is known may be one too many, and would be reset.

        Raises:
            OSError: nobody listens there, or nobody who speaks HTTP/2.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(authority(host, port)), host, port)
        try:
            await asyncio.wait_for(connection._greeted.wait(), _GREETING_TIMEOUT)
        except asyncio.TimeoutError:
            connection._transport.abort()
            raise ConnectionError("the server sent no HTTP/2 settings") from None
        return connection

    def call(self, path: str, message: bytes, handler: StreamHandler) -> int:
        """Start a call with one request message; returns its id for :meth:`cancel`.

        Raises:
            ConnectionError: the connection is gone; make another.
        """
        if not self.usable:
            raise ConnectionError("the connection is closed")
        body = b"\0" + struct.pack(">I", len(message)) + message
        identity = self._queue(handler, (self._request_headers(path), body))
        self._start_waiting()
        return identity

    def _queue(
        self, handler: StreamHandler, request: tuple[bytes, bytes], first_id: int | None = None
    ) -> int:
        identity = self._next_id
        self._next_id += 2
        first = identity if first_id is None else first_id
        self._streams[identity] = _Stream(handler, request, self._stream_window, first)
        self._waiting.append((identity, request[0]))
        return identity

    async def unary(self, path: str, message: bytes) -> bytes:
        """One request, one response.

        Raises:
            GrpcError: any other status than OK.
            ConnectionError: the connection is gone.
        """
        waiter = Unary(asyncio.get_running_loop().create_future())
        self.call(path, message, waiter)
        return await waiter.result

    def cancel(self, identity: int) -> None:
        """Take a call back; its handler hears nothing more."""
        identity = self._moved.pop(identity, identity)
        stream = self._streams.pop(identity, None)
        if stream is None:
            return
        if any(identity == waiting for waiting, _ in self._waiting):
            self._waiting = deque(item for item in self._waiting if item[0] != identity)
        elif not self._transport.is_closing():
            self._send(_RST, 0, identity, struct.pack(">I", _CANCEL))
            self._closed_one()

    def close(self) -> None:
        """Close the connection; running calls end as unavailable."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.usable = True
        # No server push, and windows so wide that flow control never stops a response.
        settings = struct.pack(">HIHI", 2, 0, _INITIAL_WINDOW, _LARGEST_WINDOW)
        transport.write(_PREFACE)
        self._send(_SETTINGS, 0, 0, settings)
        self._send(_WINDOW, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: disconnected."""
        self.usable = False
        self._greeted.set()
        self._fail_all(str(exc) if exc else "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes have arrived."""
        now = clock()
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        try:
            while end - position >= 9:
                start = position + 9
                stop = start + (data[position] << 16 | data[position + 1] << 8 | data[position + 2])
                if stop > end:
                    break
                kind, flags = data[position + 3], data[position + 4]
                identity = int.from_bytes(data[position + 5 : start], "big") & _LARGEST_WINDOW
                if kind == _DATA:
                    self._on_data(identity, flags, data[start:stop], now)
                else:
                    self._on_frame(kind, flags, identity, data[start:stop])
                position = stop
        except (IndexError, struct.error, HPACKError) as error:
            self.usable = False
            self._transport.abort()
            self._fail_all(f"the server sent malformed HTTP/2: {error}")
            return
        self._rest = data[position:]

    # Incoming frames

    def _on_data(self, identity: int, flags: int, payload: bytes, now: float) -> None:
        self._unacknowledged += len(payload)
        if self._unacknowledged >= _REFILL:
            self._send(_WINDOW, 0, 0, struct.pack(">I", self._unacknowledged))
            self._unacknowledged = 0
        stream = self._streams.get(identity)
        if stream is None:
            return
        if flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if stream.partial:
            payload = stream.partial + payload
        position, end = 0, len(payload)
        while end - position >= 5:
            stop = position + 5 + int.from_bytes(payload[position + 1 : position + 5], "big")
            if stop > end:
                break
            if payload[position]:
                self._end(
                    identity, INTERNAL, "the server compressed a response without being asked"
                )
                return
            stream.handler.on_message(payload[position + 5 : stop], now)
            position = stop
        stream.partial = payload[position:]
        if flags & _END_STREAM:
            self._end(identity, INTERNAL, "the stream ended without a status")

    def _on_frame(self, kind: int, flags: int, identity: int, payload: bytes) -> None:
        if kind == _HEADERS:
            if flags & _PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & _PRIORITY:
                payload = payload[5:]
            self._on_headers(identity, flags, flags, payload)
        elif kind == _CONTINUATION and self._block:
            identity, first_flags, before = self._block
            self._on_headers(identity, first_flags, flags, before + payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._on_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._send(_PING, _ACK, 0, payload)
        elif kind == _WINDOW:
            self._on_window(identity, struct.unpack(">I", payload)[0] & _LARGEST_WINDOW)
        elif kind == _RST:
            code = struct.unpack(">I", payload)[0]
            if code == _REFUSED and self.usable and self._again(identity):
                return
            self._end(identity, UNAVAILABLE, f"stream reset (HTTP/2 error {code})", reset=True)
        elif kind == _GOAWAY:
            self._on_goaway(struct.unpack(">I", payload[:4])[0] & _LARGEST_WINDOW)

    def _on_headers(self, identity: int, first_flags: int, flags: int, block: bytes) -> None:
        if not flags & _END_HEADERS:
            self._block = (identity, first_flags, block)
            return
        self._block = None
        # Decoded even for a cancelled call: the decoder's table has to follow every block.
        headers = self._decoder.decode(block)
        stream = self._streams.get(identity)
        if stream is None:
            return
        stream.headers.update((str(name), str(value)) for name, value in headers)
        if not first_flags & _END_STREAM:
            return
        status = stream.headers.get("grpc-status", "")
        if status.isdigit():
            self._end(identity, int(status), unquote(stream.headers.get("grpc-message", "")))
        else:
            code = stream.headers.get(":status", "?")
            self._end(identity, UNAVAILABLE, f"not a gRPC answer (HTTP status {code})")

    def _on_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
            elif name == _MAX_FRAME:
                self._max_frame = value
            elif name == _MAX_STREAMS:
                self._max_streams = value
        self._send(_SETTINGS, _ACK, 0, b"")
        self._greeted.set()
        self._start_waiting()
        self._resume()

    def _on_window(self, identity: int, increment: int) -> None:
        if identity == 0:
            self._window += increment
            self._resume()
        elif identity in self._streams:
            self._streams[identity].window += increment
            self._push(identity)

    def _on_goaway(self, last: int) -> None:
        self.usable = False
        # Those that wait for their turn have none any more; the server has not seen them.
        unseen = {identity for identity, _ in self._waiting}
        self._waiting.clear()
        for identity in [one for one in self._streams if one > last or one in unseen]:
            self._end(identity, UNAVAILABLE, "the server is shutting down")
        if not self._streams:
            self._transport.close()

    # Outgoing

    def _request_headers(self, path: str) -> bytes:
        # Literals without indexing need no table, and 0x83, 0x86 are POST and http.
        fields = (
            (b":path", path.encode()),
            (b":authority", self._authority),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
        return b"\x83\x86" + b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)

    def _start_waiting(self) -> None:
        while self._waiting and self.usable and self._open_streams < self._max_streams:
            identity, headers = self._waiting.popleft()
            self._open_streams += 1
            self._send(_HEADERS, _END_HEADERS, identity, headers)
            self._push(identity)

    def _resume(self) -> None:
        for identity in [one for one, stream in self._streams.items() if stream.to_send]:
            self._push(identity)

    def _push(self, identity: int) -> None:
        """Send as much of a request as the flow-control windows let through."""
        if any(identity == waiting for waiting, _ in self._waiting):
            return
        stream = self._streams[identity]
        while stream.to_send:
            size = min(len(stream.to_send), self._window, stream.window, self._max_frame)
            if size <= 0:
                return
            chunk, stream.to_send = stream.to_send[:size], stream.to_send[size:]
            self._window -= size
            stream.window -= size
            self._send(_DATA, 0 if stream.to_send else _END_STREAM, identity, chunk)

    def _send(self, kind: int, flags: int, identity: int, payload: bytes) -> None:
        header = struct.pack(">IBI", len(payload) << 8 | kind, flags, identity)
        self._transport.write(header + payload)

    # Ends

    def _end(self, identity: int, status: int, message: str, *, reset: bool = False) -> None:
        stream = self._streams.pop(identity, None)
        if stream is None:
            return
        self._moved.pop(stream.first_id, None)
        if stream.to_send and self.usable and not reset:
            # The answer came before the whole request was sent: the rest is not wanted.
            self._send(_RST, 0, identity, struct.pack(">I", _CANCEL))
        self._closed_one()
        stream.handler.on_end(status, message)

    def _again(self, identity: int) -> bool:
        """Send a call anew that the server has refused unseen (RFC 9113, 8.7).

        It may still count a stream whose last answer is out, so the next try waits a little.
        """
        stream = self._streams.get(identity)
        if stream is None or stream.headers or stream.partial:
            return False
        del self._streams[identity]
        self._open_streams -= 1
        fresh = self._queue(stream.handler, stream.request, stream.first_id)
        self._moved[stream.first_id] = fresh
        asyncio.get_running_loop().call_later(_PATIENCE, self._start_waiting)
        return True

    def _closed_one(self) -> None:
        self._open_streams -= 1
        if self._waiting and self.usable:
            self._start_waiting()
        if not self.usable and not self._streams:
            self._transport.close()  # the last call that a server took before it went away

    def _fail_all(self, reason: str) -> None:
        streams, self._streams = self._streams, {}
        self._waiting.clear()
        for stream in streams.values():
            stream.handler.on_end(UNAVAILABLE, reason)


def _text(value: bytes) -> bytes:
    """An HPACK string literal without Huffman coding (RFC 7541, 5.1 and 5.2)."""
    size = len(value)
    if size < 127:
        return bytes((size,)) + value
    prefix, size = bytearray((127,)), size - 127
    while size >= 128:
        prefix.append(size % 128 + 128)
        size //= 128
    prefix.append(size)
    return bytes(prefix) + value
