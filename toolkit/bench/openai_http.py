"""A server of OpenAI's API over HTTP: streamed ``/v1/completions``.

The gateway of a deployment is one, and so are other engines, which are measured alike. The
stream is server-sent events that end with ``[DONE]``
(https://platform.openai.com/docs/api-reference/completions); ``min_tokens`` and ``top_k`` are
extensions that vLLM and the gateway share.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from toolkit.bench.http_pool import HttpPool
from toolkit.bench.records import Failure, Request, RequestRecord, Usage
from toolkit.bench.target import TargetInfo, authority
from toolkit.errors import ServerError

_PATH = "/v1/completions"
_EVENT_END = b"\n\n"
_DONE = b"[DONE]"
_KINDS = {429: "overload", 503: "overload", 504: "timeout"}


class OpenAiTarget:
    """Streams completions, one connection for each running request.

    Args:
        host: Name or address of the server.
        port: Its port.
        model: Model to ask for.
        key: API key, where one is needed.
        timeout: Seconds after which a request counts as failed, and is cancelled.
    """

    def __init__(
        self, host: str, port: int, model: str, *, key: str | None = None, timeout: float = 120.0
    ) -> None:
        self._model, self._timeout = model, timeout
        self._pool = HttpPool(host, port)
        self._headers = f"Authorization: Bearer {key}\r\n" if key else ""
        self.url = f"http://{authority(host, port)}"

    async def open(self) -> TargetInfo:
        """Ask which models it serves.

        Raises:
            ServerError: nobody answers there, or the model is not served.
        """
        try:
            status, body = await self._pool.get("/v1/models", headers=self._headers)
            found = orjson.loads(body)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            raise ServerError(
                f"the server is not reachable: {str(error) or 'no answer'}", where=self.url
            ) from error
        names = [one["id"] for one in found.get("data", ())] if status == 200 else []
        if self._model not in names:
            hint = f"it serves {', '.join(names)}" if names else f"HTTP status {status}"
            raise ServerError(f"the server does not serve {self._model}", where=self.url, hint=hint)
        return TargetInfo(self._model, "openai completions", self.url)

    async def generate(self, request: Request) -> RequestRecord:
        """Run one request to its end."""
        done = asyncio.get_running_loop().create_future()
        answer = _Answer(RequestRecord(request), done)
        headers = self._headers
        if request.request_class:
            headers += f"X-Request-Class: {request.request_class}\r\n"
        body = self._body(request)
        return await self._pool.post(_PATH, body, answer, self._timeout, headers=headers)

    async def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _body(self, request: Request) -> bytes:
        sampling = request.sampling
        values = {
            "model": self._model,
            "prompt": request.prompt,
            "max_tokens": request.max_tokens,
            "min_tokens": request.min_tokens,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return orjson.dumps({name: value for name, value in values.items() if value is not None})


class _Answer:
    """Turns the body of one answer into its record."""

    __slots__ = ("_done", "_error", "_finish", "_partial", "_texts", "_usage", "done", "record")

    def __init__(self, record: RequestRecord, done: asyncio.Future[None]) -> None:
        self.record = record
        self.done = done
        self._done = 0.0
        self._error = ""
        self._finish: str | None = None
        self._partial = b""
        self._texts: list[str] = []
        self._usage: dict[str, Any] = {}

    def on_body(self, data: bytes, when: float) -> None:
        if self._partial:
            data = self._partial + data
        *events, self._partial = data.split(_EVENT_END)
        for event in events:
            if event.startswith(b"data: "):
                self._on_event(event[6:], when)

    def on_end(self, status: int, error: str) -> None:
        if error:
            self._end(Failure("connection", error))
        elif status != 200:
            self._end(Failure(_KINDS.get(status, _kind(status)), _message(self._partial, status)))
        elif self._error:
            self._end(Failure("server", self._error))
        elif not self._done:
            self._end(Failure("protocol", "the stream ended without [DONE]"))
        else:
            self._end(None)

    def expire(self, timeout: float) -> None:
        self._end(Failure("timeout", f"no complete answer within {timeout:g} s"))

    def _on_event(self, data: bytes, when: float) -> None:
        if data == _DONE:
            self._done = when
            return
        try:
            event = orjson.loads(data)
        except ValueError:
            self._error = f"an event is not JSON: {data[:80]!r}"
            return
        if "error" in event:
            self._error = str(event["error"])
            return
        for choice in event.get("choices", ()):
            if choice.get("text"):
                self.record.responses.append(when)
                self._texts.append(choice["text"])
            self._finish = choice.get("finish_reason") or self._finish
        self._usage = event.get("usage") or self._usage

    def _end(self, failure: Failure | None) -> None:
        if self.done.done():
            return
        self.record.text = "".join(self._texts)
        if failure:
            self.record.fail(failure.kind, failure.message)
        else:
            details = self._usage.get("prompt_tokens_details") or {}
            last = self.record.responses[-1] if self.record.responses else self._done
            self.record.complete(
                last,
                Usage(
                    prompt_tokens=self._usage.get("prompt_tokens"),
                    output_tokens=self._usage.get("completion_tokens"),
                    cached_tokens=details.get("cached_tokens"),
                    finish_reason=self._finish,
                ),
            )
        self.done.set_result(None)


def _kind(status: int) -> str:
    return "refused" if 400 <= status < 500 else "server"


def _message(body: bytes, status: int) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {status}"
