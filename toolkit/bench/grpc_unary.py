"""One request, one response: what becomes of the end of such a call."""

from __future__ import annotations

import asyncio

OK = 0
"""gRPC's status code of success."""


class GrpcError(Exception):
    """A call ended with another status than OK."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} (gRPC status {status})")
        self.status = status
        self.message = message


class Unary:
    """Hears one call with one response, and gives it to ``result``."""

    def __init__(self, result: asyncio.Future[bytes]) -> None:
        self.result = result
        self._message = b""

    def on_message(self, message: bytes, when: float) -> None:
        self._message = message

    def on_end(self, status: int, message: str) -> None:
        if self.result.done():
            return
        if status == OK:
            self.result.set_result(self._message)
        else:
            self.result.set_exception(GrpcError(status, message))
