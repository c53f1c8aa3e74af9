"""One HTTP request and its answer, on bare ASGI: streamed answers pass here token by token."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from toolkit.gateway.openai.errors import error_body, error_headers
from toolkit.gateway.openai.settings import ApiSettings
from toolkit.gateway.work import GatewayError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ABORT = "toolkit.abort"
"""ASGI extension of :mod:`toolkit.gateway.openai.protocol`: breaks the connection off."""

RECORD = "toolkit.record"
"""Where in the scope the :class:`Record` of a request lies, for whoever writes a log."""

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"

_READ_ON = 8

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class ClientGone(Exception):  # noqa: N818 - nothing is wrong with the request
    """The client has left: nobody is there to answer."""


class ClientTooSlow(ClientGone):
    """The client takes nothing, or too little: it is not waited for any more."""


@dataclass(slots=True)
class Record:
    """What a request was, without its text."""

    request_id: str
    model: str = ""
    request_class: str = ""
    caller: str = ""
    stream: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    outcome: str = ""


class Exchange:
    """What an endpoint works with."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: ApiSettings) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.settings = settings
        self.started = False
        self._allowed = ""
        self.headers: dict[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        self.record = Record(self.request_id)
        scope[RECORD] = self.record

    def allow(self, *methods: str) -> None:
        """Refuse other methods.

        Raises:
            GatewayError: 405.
        """
        method = self.scope["method"]
        if method not in methods:
            self._allowed = ", ".join(methods)
            raise GatewayError(
                405, f"{method} is not allowed here, {self._allowed} is.", code="method_not_allowed"
            )

    async def body(self) -> bytes:
        """The whole body, which has to be JSON by its content type.

        Raises:
            GatewayError: 408, 413 or 415.
            ClientGone: it left before the body's end.
        """
        media = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise GatewayError(
                415,
                f"The content type must be application/json, not {media or 'absent'}.",
                code="unsupported_media_type",
            )
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._most_read:
            raise self._too_large()
        try:
            return await asyncio.wait_for(self._read(), self.settings.stall_timeout)
        except asyncio.TimeoutError:
            raise GatewayError(
                408, "The body did not come in time.", code="request_timeout"
            ) from None

    async def _read(self) -> bytes:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > self._most_read:
                raise self._too_large()
            if size > self.settings.max_body:
                parts.clear()
            else:
                parts.append(part)
            more = message.get("more_body", False)
        if size > self.settings.max_body:
            raise self._too_large()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @property
    def _most_read(self) -> int:
        # A client that is answered while it still sends may never see the answer: what is not
        # much too large is read to its end, and thrown away.
        return _READ_ON * self.settings.max_body

    def _too_large(self) -> GatewayError:
        return GatewayError(
            413,
            f"The body is larger than {self.settings.max_body} bytes.",
            code="request_too_large",
        )

    async def gone(self) -> None:
        """Returns when the client has left (or when the answer is complete)."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    def head(self, status: int, content_type: bytes, *more: tuple[bytes, bytes]) -> dict[str, Any]:
        """The message that begins an answer."""
        self.started = True
        headers = [
            (b"content-type", content_type),
            (b"x-request-id", self.request_id.encode()),
            *more,
        ]
        return {"type": "http.response.start", "status": status, "headers": headers}

    async def answer(self, body: bytes, status: int = 200, *more: tuple[bytes, bytes]) -> None:
        """Send a whole JSON body."""
        length = (b"content-length", b"%d" % len(body))
        await self.send(self.head(status, JSON, length, *more))
        await self.send({"type": "http.response.body", "body": body})

    async def refuse(self, error: GatewayError) -> None:
        """Send an error."""
        self.record.outcome = self.record.outcome or error.code or error.kind
        headers = error_headers(error)
        if error.status in (408, 413):
            # What is left of the body has not been read.
            headers.append((b"connection", b"close"))
        if error.status == 405:
            headers.append((b"allow", self._allowed.encode()))
        await self.answer(error_body(error), error.status, *headers)

    async def abort(self) -> None:
        """Break the connection off, where the server lets us."""
        extension = self.scope.get("extensions", {}).get(ABORT)
        if extension is not None:
            extension["abort"]()
            # The server has to have noticed before we return, or it misses an answer.
            await self.gone()
