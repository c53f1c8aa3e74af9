"""A gRPC server that speaks Triton's protocol from a script: grpcio's own HTTP/2, no model."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb

Script = Callable[[Any, Any], Iterator[Any]]
SERVICE = "/inference.GRPCInferenceService/"


@dataclass
class Seen:
    """What the server was asked."""

    requests: list[Any] = field(default_factory=list)


def response(text: str | None = None, *, final: bool | None = False, **usage: int | str) -> Any:
    """One response; ``final`` None leaves the flag out, as old servers do."""
    message = pb.ModelStreamInferResponse()
    answer = message.infer_response
    if final is not None:
        answer.parameters["triton_final_response"].bool_param = final
    if text is not None:
        data = text.encode()
        answer.outputs.add(name="text_output", datatype="BYTES", shape=[1])
        answer.raw_output_contents.append(struct.pack("<I", len(data)) + data)
    for name, value in usage.items():
        form = "<q" if name.endswith("_ns") else "<i"
        if isinstance(value, str):
            raw = struct.pack("<I", len(value)) + value.encode()
        else:
            raw = struct.pack(form, value)
        kind = "BYTES" if isinstance(value, str) else "INT64" if form == "<q" else "INT32"
        answer.outputs.add(name=name, datatype=kind, shape=[1, 1])
        answer.raw_output_contents.append(raw)
    return message


def error(message: str) -> Any:
    """An error inside the stream."""
    return pb.ModelStreamInferResponse(error_message=message)


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, script: Script, inputs: dict[str, str], batched: bool) -> None:
        self.seen = Seen()
        self._script, self._inputs, self._batched = script, inputs, batched

    def service(self, details: Any) -> Any:
        name = details.method.removeprefix(SERVICE)
        if name == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(
                self._stream,
                pb.ModelInferRequest.FromString,
                pb.ModelStreamInferResponse.SerializeToString,
            )
        if name == "ServerMetadata":
            answer = pb.ServerMetadataResponse(name="double", version="1")
        elif name == "ModelMetadata":
            answer = pb.ModelMetadataResponse(name="model")
            for key, kind in self._inputs.items():
                answer.inputs.add(name=key, datatype=kind, shape=[-1, 1] if self._batched else [1])
        else:
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda _request, _context: answer.SerializeToString(), None, None
        )

    def _stream(self, requests: Any, context: Any) -> Iterator[Any]:
        for request in requests:
            self.seen.requests.append(request)
            yield from self._script(request, context)


INPUTS = {"text_input": "BYTES", "max_tokens": "INT32", "stream": "BOOL"}


@contextmanager
def serving(
    script: Script,
    *,
    inputs: dict[str, str] | None = None,
    batched: bool = True,
    max_streams: int | None = None,
) -> Iterator[tuple[int, Seen]]:
    """The port of a running double, and what it has seen."""
    handler = _Handler(script, INPUTS if inputs is None else inputs, batched)
    options = [("grpc.max_concurrent_streams", max_streams)] if max_streams else []
    options.append(("grpc.max_receive_message_length", -1))
    server = grpc.server(ThreadPoolExecutor(16), handlers=[handler], options=options)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port, handler.seen
    finally:
        server.stop(0).wait()
