"""A Triton model over HTTP: ``generate_stream`` (server-sent events) or ``generate``.

The generate extension:
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_generate.html
An error inside a stream is an event whose JSON holds ``error``; before the first response it
also sets the status of the answer.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from toolkit.bench import contract
from toolkit.bench.http_pool import HttpPool
from toolkit.bench.records import Failure, Request, RequestRecord
from toolkit.bench.target import TargetInfo, authority
from toolkit.bench.triton_grpc import require_inputs, unreachable
from toolkit.errors import ServerError

_EVENT_END = b"\n\n"


class TritonHttpTarget:
    """Calls a Triton model's generate endpoints, one connection for each running request.

    Args:
        host: Name or address of the server.
        port: Its HTTP port.
        model: Model to call: the deployment's name.
        stream: ``generate_stream``; else ``generate``, whose only response holds it all, so
            that there are no times between tokens and the first one comes with the last.
        timeout: Seconds after which a request counts as failed, and is cancelled.
    """

    def __init__(
        self, host: str, port: int, model: str, *, stream: bool = True, timeout: float = 120.0
    ) -> None:
        self._model, self._stream, self._timeout = model, stream, timeout
        self._path = f"/v2/models/{model}/generate{'_stream' if stream else ''}"
        self._pool = HttpPool(host, port)
        self._known: frozenset[str] = frozenset()
        self.url = f"http://{authority(host, port)}"

    async def open(self) -> TargetInfo:
        """Ask for the server's and the model's metadata.

        Raises:
            ServerError: nobody answers there, or the model is not served.
            SpecError: the model does not take the inputs that a prompt needs.
        """
        try:
            server = await self._get("/v2")
            model = await self._get(f"/v2/models/{self._model}")
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            raise unreachable(self.url, self._model, error) from error
        if "error" in model:
            raise ServerError(
                f"the server does not serve {self._model}: {model['error']}", where=self.url
            )
        self._known = frozenset(one["name"] for one in model.get("inputs", ()))
        require_inputs(self._known, self._model)
        protocol = "http generate_stream" if self._stream else "http generate"
        version = f"{server.get('name', '?')} {server.get('version', '?')}"
        return TargetInfo(self._model, protocol, self.url, version)

    async def generate(self, request: Request) -> RequestRecord:
        """Run one request to its end."""
        done = asyncio.get_running_loop().create_future()
        answer = _Answer(RequestRecord(request), done, self._stream)
        body = json.dumps(contract.inputs(request, self._stream, self._known)).encode()
        return await self._pool.post(self._path, body, answer, self._timeout)

    async def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    async def _get(self, path: str) -> dict[str, Any]:
        _, body = await self._pool.get(path)
        found = json.loads(body)
        return found if isinstance(found, dict) else {}


class _Answer:
    """Turns the body of one answer into its record."""

    __slots__ = ("_error", "_events", "_last", "_partial", "_response", "_texts", "done", "record")

    def __init__(self, record: RequestRecord, done: asyncio.Future[None], events: bool) -> None:
        self.record = record
        self.done = done
        self._events = events
        self._partial = b""
        self._texts: list[str] = []
        self._last = 0.0
        self._response: dict[str, Any] = {}
        self._error = ""

    def on_body(self, data: bytes, when: float) -> None:
        if not self._events:
            self._partial += data
            self._last = when
            return
        if self._partial:
            data = self._partial + data
        *events, self._partial = data.split(_EVENT_END)
        for event in events:
            if event.startswith(b"data:"):
                self._on_response(event[5:], when)

    def on_end(self, status: int, error: str) -> None:
        if not self._events and not error:
            self._on_response(self._partial, self._last)
        if error:
            self._end(Failure("connection", error))
        elif status != 200 or self._error:
            message = self._error or f"HTTP status {status}"
            code = None if status == 200 else status
            self._end(Failure(contract.failure_kind(message, status=code), message))
        elif not self._last:
            self._end(Failure("protocol", "the answer holds no response"))
        else:
            self._end(None)

    def expire(self, timeout: float) -> None:
        self._end(Failure("timeout", f"no complete answer within {timeout:g} s"))

    def _on_response(self, data: bytes, when: float) -> None:
        try:
            response = json.loads(data)
        except ValueError:
            response = {"error": f"a response is not JSON: {data[:80]!r}"}
        if "error" in response:
            self._error = str(response["error"])
            return
        # There is no final flag here: each response may be the last, until another comes.
        self._last = when
        self._response = response
        text = response.get(contract.TEXT_OUTPUT)
        if text:
            self.record.responses.append(when)
            self._texts.append(text)

    def _end(self, failure: Failure | None) -> None:
        if self.done.done():
            return
        self.record.text = "".join(self._texts)
        if failure:
            self.record.fail(failure.kind, failure.message)
        else:
            self.record.complete(self._last, contract.usage(self._response))
        self.done.set_result(None)
