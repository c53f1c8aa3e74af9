"""One replica over real gRPC: cancelled, aborted, failed, away and back again."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.gateway.dispatch.stand_in_replica import work
from toolkit.gateway.triton.failure import ReplicaFailure
from toolkit.gateway.triton.replica import TritonReplica
from toolkit.gateway.work import Final, GatewayError, Piece


class Servant(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A server of one model that says what it is told to, and how each of its calls ended."""

    def __init__(self) -> None:
        self.error = ""
        self.hold = asyncio.Event()
        self.ends: list[str] = []
        self.calls = 0

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's
        found = service_pb2.ModelMetadataResponse(name="chat")
        found.inputs.add(name="text_input", datatype="BYTES", shape=[-1, 1])
        found.inputs.add(name="top_p", datatype="FP32", shape=[-1, 1])
        found.outputs.add(name="text_output", datatype="BYTES", shape=[-1])
        return found

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=True)

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.calls += 1
        try:
            async for _ in requests:
                if self.error:
                    yield service_pb2.ModelStreamInferResponse(error_message=self.error)
                    await asyncio.sleep(0.05)
                    continue
                yield self._answer(False)
                await self.hold.wait()
                yield self._answer(True)
            self.ends.append("well")
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise

    @staticmethod
    def _answer(last: bool) -> Any:
        response = service_pb2.ModelStreamInferResponse()
        answer = response.infer_response
        answer.parameters["triton_final_response"].bool_param = last
        answer.outputs.add(name="text_output", datatype="BYTES", shape=[1])
        answer.raw_output_contents.append(b"\x02\x00\x00\x00hi")
        return response


async def serve(servant: Servant, port: int = 0) -> tuple[Any, int]:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servant, server)
    chosen = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, chosen


@contextlib.asynccontextmanager
async def house() -> AsyncIterator[tuple[TritonReplica, Servant]]:
    servant = Servant()
    server, port = await serve(servant)
    replica = TritonReplica(f"127.0.0.1:{port}", None, "chat")
    try:
        await replica.open(5)
        yield replica, servant
    finally:
        await replica.close()
        await server.stop(0)


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test."""

    def run(monkeypatch: pytest.MonkeyPatch) -> None:
        asyncio.run(asyncio.wait_for(test(monkeypatch), 30))  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def pieces(replica: TritonReplica, identity: str, into: list[Piece]) -> None:
    async for piece in replica.generate(work(identity)):
        into.append(piece)


@in_loop
async def test_an_answer_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house() as (replica, servant):
        servant.hold.set()
        found: list[Piece] = []
        await pieces(replica, "a", found)
        assert [type(each) for each in found] == [Piece, Final]
        await until(lambda: servant.ends == ["well"])


@in_loop
async def test_a_call_that_failed_is_not_cancelled_at_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with house() as (replica, servant):
        servant.error = "top_p: must be at most 1"
        with pytest.raises(GatewayError, match="top_p"):
            await pieces(replica, "a", [])
        await until(lambda: bool(servant.ends))
        assert servant.ends == ["well"]


@in_loop
async def test_an_aborted_call_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house() as (replica, servant):
        found: list[Piece] = []
        task = asyncio.create_task(pieces(replica, "a", found))
        await until(lambda: bool(found))
        replica.abort("a", ReplicaFailure("connection", "it is gone"))
        with pytest.raises(ReplicaFailure, match="it is gone"):
            await task
        await until(lambda: servant.ends == ["cancelled"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task does not know why it was cancelled")
@in_loop
async def test_who_leaves_at_the_moment_of_an_abort_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Were the reason raised instead, the request would run once more for nobody."""
    async with house() as (replica, _):
        found: list[Piece] = []
        task = asyncio.create_task(pieces(replica, "a", found))
        await until(lambda: bool(found))
        replica.abort("a", ReplicaFailure("connection", "it is gone"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@in_loop
async def test_a_server_that_comes_back_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    servant = Servant()
    servant.hold.set()
    server, port = await serve(servant)
    replica = TritonReplica(f"127.0.0.1:{port}", None, "chat")
    await replica.open(5)
    await server.stop(0)
    with pytest.raises(ReplicaFailure) as caught:
        await pieces(replica, "a", [])
    assert caught.value.cause == "connection"
    assert not await replica.ready(1)
    server, _ = await serve(servant, port)
    for _ in range(100):
        with contextlib.suppress(ReplicaFailure):
            await replica.open(2)
            break
        await asyncio.sleep(0.1)
    assert await replica.ready(2)
    found: list[Piece] = []
    await pieces(replica, "b", found)
    assert len(found) == 2
    await replica.close()
    await server.stop(0)


@in_loop
async def test_a_proxy_for_the_web_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with house() as (replica, _):
        assert await replica.ready(2)
