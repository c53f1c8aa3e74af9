"""A Triton model over gRPC streaming (``ModelStreamInfer``), one HTTP/2 stream a request.

Triton's protocol: https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto
A decoupled model's responses carry the parameter ``triton_final_response``, true on the last
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/decoupled_models.html);
with ``triton_enable_empty_final_response`` a last one comes even if the model had nothing
more to say when it ended.
"""

from __future__ import annotations

import asyncio
from typing import Any

from toolkit.bench import contract, tensors
from toolkit.bench.http2 import OK, UNAVAILABLE, GrpcConnection, GrpcError
from toolkit.bench.records import Request, RequestRecord, clock
from toolkit.bench.target import TargetInfo, authority
from toolkit.errors import ServerError, SpecError

SERVICE = "/inference.GRPCInferenceService/"
FINAL = "triton_final_response"
_INVALID_ARGUMENT, _DEADLINE_EXCEEDED, _RESOURCE_EXHAUSTED = 3, 4, 8


class TritonGrpcTarget:
    """Streams from a decoupled Triton model.

    Args:
        host: Name or address of the server.
        port: Its gRPC port.
        model: Model to call: the deployment's name.
        timeout: Seconds after which a request counts as failed, and is cancelled.
    """

    def __init__(self, host: str, port: int, model: str, *, timeout: float = 120.0) -> None:
        self._host, self._port, self._model, self._timeout = host, port, model, timeout
        self._connection: GrpcConnection | None = None
        self._connecting = asyncio.Lock()
        self._inputs: dict[str, tuple[str, int]] = {}
        self._known: frozenset[str] = frozenset()

    @property
    def url(self) -> str:
        """Where it is, for people."""
        return f"grpc://{authority(self._host, self._port)}"

    async def open(self) -> TargetInfo:
        """Connect, and learn the model's inputs.

        Raises:
            ServerError: nobody answers there, or the model is not served.
            SpecError: the model does not take the inputs that a prompt needs.
        """
        from tritonclient.grpc import service_pb2 as pb

        self._pb: Any = pb
        self._parse = pb.ModelStreamInferResponse.FromString
        try:
            server = pb.ServerMetadataResponse.FromString(await self._unary("ServerMetadata", b""))
            question = pb.ModelMetadataRequest(name=self._model).SerializeToString()
            model = pb.ModelMetadataResponse.FromString(
                await self._unary("ModelMetadata", question)
            )
        except (OSError, GrpcError, asyncio.TimeoutError) as error:
            raise unreachable(self.url, self._model, error) from error
        self._inputs = {one.name: (one.datatype, len(one.shape)) for one in model.inputs}
        self._known = frozenset(self._inputs)
        require_inputs(self._known, self._model)
        return TargetInfo(self._model, "grpc", self.url, f"{server.name} {server.version}")

    async def generate(self, request: Request) -> RequestRecord:
        """Stream one request to its final response."""
        loop = asyncio.get_running_loop()
        record = RequestRecord(request)
        call = _Call(record, loop.create_future(), self._parse)
        try:
            message = self._message(request)
            connection = await self._connected()
            record.sent = clock()
            identity = connection.call(f"{SERVICE}ModelStreamInfer", message, call)
        except OSError as error:
            record.fail("connection", str(error))
            return record
        except ValueError as error:
            record.fail("refused", f"cannot be sent: {error}")
            return record
        timer = loop.call_later(self._timeout, call.expire, self._timeout)
        try:
            await call.done
        finally:
            timer.cancel()
            # A completed call lingers until its trailers are in, and is left to them.
            if not call.completed:
                connection.cancel(identity)
        return record

    async def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()

    def _message(self, request: Request) -> bytes:
        message = self._pb.ModelInferRequest(model_name=self._model, id=str(request.number))
        for name, value in contract.inputs(request, True, self._known).items():
            datatype, dimensions = self._inputs[name]
            tensor = message.inputs.add(name=name, datatype=datatype)
            tensor.shape.extend([1] * dimensions)
            message.raw_input_contents.append(tensors.encode(value, datatype))
        message.parameters["triton_enable_empty_final_response"].bool_param = True
        data: bytes = message.SerializeToString()
        return data

    async def _unary(self, method: str, message: bytes) -> bytes:
        connection = await self._connected()
        return await asyncio.wait_for(connection.unary(SERVICE + method, message), 10)

    async def _connected(self) -> GrpcConnection:
        if self._connection and self._connection.usable:
            return self._connection
        async with self._connecting:
            if not (self._connection and self._connection.usable):
                self._connection = await GrpcConnection.connect(self._host, self._port)
            return self._connection


class _Call:
    """Turns the responses of one call into its record."""

    __slots__ = ("_flagged", "_parse", "_texts", "completed", "done", "record")

    def __init__(self, record: RequestRecord, done: asyncio.Future[None], parse: Any) -> None:
        self.record = record
        self.done = done
        self.completed = False
        self._parse = parse
        self._texts: list[bytes] = []
        self._flagged = False

    def on_message(self, message: bytes, when: float) -> None:
        if self.done.done():
            return
        response = self._parse(message)
        if response.error_message:
            self._fail(contract.failure_kind(response.error_message), response.error_message)
            return
        answer = response.infer_response
        # The rest of this method runs once a token: it touches nothing that it can leave.
        raw = answer.raw_output_contents
        for index, output in enumerate(answer.outputs):
            if output.name == contract.TEXT_OUTPUT:
                data = raw[index]
                if len(data) > 4:
                    self.record.responses.append(when)
                    self._texts.append(data)
                break
        final = answer.parameters.get(FINAL)
        if final is not None:
            self._flagged = True
            if final.bool_param:
                self._complete(answer, when)

    def on_end(self, status: int, message: str) -> None:
        if self.done.done():
            return
        if status != OK:
            self._fail(_kind(status), message or f"gRPC status {status}")
        elif self._flagged or not self._texts:
            self._fail("protocol", "the stream ended without a final response")
        else:
            # A server from before the flag existed: the end of the stream is the end.
            self._complete(None, self.record.responses[-1])

    def expire(self, timeout: float) -> None:
        if not self.done.done():
            self._fail("timeout", f"no final response within {timeout:g} s")

    def _complete(self, answer: Any, when: float) -> None:
        self.completed = True
        self.record.text = "".join(tensors.text(data) for data in self._texts)
        values = {}
        if answer is not None:
            for index, output in enumerate(answer.outputs):
                if output.name in contract.USAGE_OUTPUTS:
                    raw = answer.raw_output_contents[index]
                    values[output.name] = tensors.decode(raw, output.datatype)
        self.record.complete(when, contract.usage(values))
        self.done.set_result(None)

    def _fail(self, kind: str, message: str) -> None:
        self.record.text = "".join(tensors.text(data) for data in self._texts)
        self.record.fail(kind, message)
        self.done.set_result(None)


def unreachable(url: str, model: str, error: BaseException) -> ServerError:
    """The error for a server that does not answer, or does not serve ``model``."""
    if isinstance(error, GrpcError) and error.status != UNAVAILABLE:
        return ServerError(f"the server does not serve {model}: {error.message}", where=url)
    return ServerError(
        f"the server is not reachable: {str(error) or 'no answer'}",
        where=url,
        hint="start it with `toolkit deploy`, see `toolkit status`, or pass --url",
    )


def require_inputs(known: frozenset[str], model: str) -> None:
    """Refuse a model that does not take a prompt.

    Raises:
        SpecError: an input that every request needs is missing.
    """
    missing = [name for name in contract.REQUIRED_INPUTS if name not in known]
    if missing:
        raise SpecError(
            f"the model has no input {' and no '.join(missing)}",
            where=model,
            hint="name the deployment's ensemble with --model, not a model inside it",
        )


def _kind(status: int) -> str:
    return {
        UNAVAILABLE: "connection",
        _INVALID_ARGUMENT: "refused",
        _RESOURCE_EXHAUSTED: "overload",
        _DEADLINE_EXCEEDED: "timeout",
    }.get(status, "server")
