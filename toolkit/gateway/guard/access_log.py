"""One line of JSON for each HTTP request: who, what, how much, how long; never its text."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

RECORD = "toolkit.record"
"""Where in the scope the API leaves what it knows of a request."""

_QUIET = frozenset({"/health", "/ready", "/metrics"})


class AccessLog:
    """ASGI around the application.

    Args:
        app: What answers.
        write: Takes one line, with its end.
    """

    def __init__(self, app: App, write: Callable[[bytes], object]) -> None:
        self._app = app
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _QUIET:
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, see)
        finally:
            # A reader that has gone, or is too slow, is no reason to break an answer off.
            with contextlib.suppress(OSError):
                self._write(_line(scope, status, time.perf_counter() - started))


def _line(scope: Scope, status: int, seconds: float) -> bytes:
    client = scope.get("client")
    fields: dict[str, Any] = {
        "time": time.time(),
        "client": client[0] if client else None,
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "seconds": round(seconds, 4),
    }
    record = scope.get(RECORD)
    if record is not None:
        fields |= {name: getattr(record, name) for name in record.__slots__}
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
