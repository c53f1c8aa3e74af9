"""Answers of one Triton over gRPC streaming, one call a request.

A decoupled model's last response carries the parameter ``triton_final_response``
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/decoupled_models.html).
Cancelling a call that has just ended can keep a model loaded for ever in Triton 2.51, so a
call whose last response is in is read to its end instead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from toolkit.gateway.triton import tensors
from toolkit.gateway.triton.capacity import Capacity
from toolkit.gateway.triton.failure import ReplicaFailure, understand
from toolkit.gateway.work import Piece, Work
from toolkit.serving.metrics import REQUESTS, Load, Metrics, parse

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Like the probes of its metrics: a proxy for the web knows nothing of the servers within.
    ("grpc.enable_http_proxy", 0),
)
_END_TIMEOUT = 5.0
BACKEND_MODEL = "tensorrt_llm"


class TritonReplica:
    """One server that serves a deployment.

    Args:
        address: ``host:port`` of its gRPC.
        metrics_address: ``host:port`` of its metrics; None: nothing is known of its load.
        model: The deployment's name.
    """

    def __init__(self, address: str, metrics_address: str | None, model: str) -> None:
        self.address = address
        self.model = model
        self._metrics_address = metrics_address
        self._channel: Any = None
        self._inputs: dict[str, tuple[str, int]] = {}
        self._outputs: frozenset[str] = frozenset()
        self._calls: dict[str, Any] = {}
        self._aborted: dict[str, Exception] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def open(self, timeout: float) -> None:
        """Connect if need be, and learn the model's tensors.

        Raises:
            ReplicaFailure: not reachable within ``timeout`` seconds, or the model is not there.
        """
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        if self._channel is None:
            self._pb: Any = service_pb2
            self._channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        question = self._pb.ModelMetadataRequest(name=self.model)
        try:
            found = await self._stub.ModelMetadata(question, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        self._inputs = {each.name: (each.datatype, len(each.shape)) for each in found.inputs}
        self._outputs = frozenset(each.name for each in found.outputs)

    @property
    def guided(self) -> bool:
        """Whether its engine guides decoding."""
        return "guided_decoding_guide_type" in self._inputs

    async def ready(self, timeout: float) -> bool:
        """Whether it would take a request."""
        import grpc

        try:
            question = self._pb.ModelReadyRequest(name=self.model)
            answer = await self._stub.ModelReady(question, timeout=timeout)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def load(self, timeout: float) -> Load | None:
        """What its engine is doing; None without metrics."""
        metrics = await self._metrics(timeout)
        return Load.of(metrics) if metrics else None

    async def capacity(self, timeout: float) -> Capacity | None:
        """What it holds; None without metrics."""
        metrics = await self._metrics(timeout)
        return Capacity.of(metrics) if metrics else None

    async def _metrics(self, timeout: float) -> Metrics | None:
        text = await _get(self._metrics_address, timeout) if self._metrics_address else None
        return _of(parse(text), self.model) if text is not None else None

    async def generate(
        self, work: Work, deadline_s: float | None = None
    ) -> AsyncGenerator[Piece, None]:
        """Pieces of the answer, the last one final. Closing it cancels the request.

        Raises:
            ReplicaFailure: it failed; another replica may not.
            GatewayError: the request itself is at fault, or its time is over.
        """
        import grpc

        message = tensors.request(self._pb, work, self._inputs, self._outputs, deadline_s)
        call = self._stub.ModelStreamInfer(_once(message))
        self._calls[work.id] = call
        try:
            async for response in call:
                if response.error_message:
                    self._let_end(work.id)
                    raise understand(response.error_message, self._inputs)
                answer = response.infer_response
                if answer.parameters[tensors.FINAL_FLAG].bool_param:
                    self._let_end(work.id)
                    yield tensors.final(answer)
                    return
                if answer.raw_output_contents:
                    yield tensors.piece(answer)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        except asyncio.CancelledError:
            if work.id in self._aborted and not _leaves():
                raise self._aborted[work.id] from None
            raise
        finally:
            self._aborted.pop(work.id, None)
            if self._calls.pop(work.id, None) is not None:
                call.cancel()
        raise ReplicaFailure("server", "the answer ended without its last part")

    def abort(self, request: str, reason: Exception) -> None:
        """Cancel a running request, whose generator then raises ``reason``."""
        call = self._calls.get(request)
        if call is not None:
            self._aborted[request] = reason
            call.cancel()

    async def close(self) -> None:
        """Let go of the connection; what still runs on it is cancelled."""
        if self._endings:
            await asyncio.wait(self._endings, timeout=_END_TIMEOUT)
        if self._channel is not None:
            await self._channel.close()

    def _let_end(self, request: str) -> None:
        task = asyncio.ensure_future(_read_out(self._calls.pop(request)))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)


def _leaves() -> bool:
    """Whether the present task itself is cancelled. Before Python 3.11 nobody can tell."""
    cancelling = getattr(asyncio.current_task(), "cancelling", None)
    return cancelling is not None and cancelling() > 0


async def _once(message: Any) -> AsyncGenerator[Any, None]:
    yield message


async def _read_out(call: Any) -> None:
    import grpc

    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        try:
            await asyncio.wait_for(call.code(), _END_TIMEOUT)
        except asyncio.TimeoutError:
            call.cancel()


async def _get(address: str, timeout: float) -> str | None:
    from toolkit.serving import probe

    url = f"http://{address}/metrics"
    status, body = await asyncio.to_thread(probe.get, url, timeout)
    return body.decode(errors="replace") if status == 200 else None


def _of(metrics: Metrics, model: str) -> Metrics:
    """The samples of one model: a server may have several.

    NVIDIA's C++ backend labels its families with its own model's name, not the deployment's.
    """
    names = {each.label("model") for each in metrics.samples if each.family == REQUESTS}
    own = model if model in names else BACKEND_MODEL
    return Metrics(each for each in metrics.samples if each.label("model") in ("", own))


def _failure(error: Any) -> ReplicaFailure:
    import grpc

    gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return ReplicaFailure(
        "connection" if gone else "server", error.details() or str(error.code().name)
    )
