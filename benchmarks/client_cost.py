"""What a streaming client costs in processor time, by the library that it is made with.

The load generator shares the machine with the server, so what it uses is missing there. This
starts a real Triton whose model counts instead of generating (tests/bench/triton_models) at a
fixed pace, streams the same requests through each client in a process of its own, interleaved,
and prints the client's processor seconds for 10,000 responses:

    python benchmarks/client_cost.py [--rounds 3]

How many responses a second one process and two take before they bend the figures is measured by
benchmarks/client_ceiling.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MODEL = "echo-chat"
TICK_MS = "20"
CONCURRENCY, REQUESTS, TOKENS = 32, 96, 100
PROMPT = "a b c"

Ask = Callable[[int], Awaitable[int]]
"""Runs one request, returns how many responses came."""


async def drive(ask: Ask) -> int:
    """All requests from that many users; the responses in total."""
    numbers = iter(range(REQUESTS))

    async def user() -> int:
        return sum([await ask(number) for number in numbers])

    return sum(await asyncio.gather(*(user() for _ in range(CONCURRENCY))))


async def toolkit_client(url: str, protocol: str) -> int:
    """This toolkit's own."""
    from toolkit.bench.endpoint import target_at
    from toolkit.bench.records import Request, clock

    target = target_at(url, MODEL, protocol, timeout=60)
    await target.open()

    async def ask(number: int) -> int:
        record = await target.generate(Request(number, PROMPT, TOKENS, clock()))
        assert record.ok, record.failure
        return len(record.responses)

    try:
        return await drive(ask)
    finally:
        await target.close()


async def grpcio_aio(address: str) -> int:
    """grpcio's asyncio API with Triton's generated messages."""
    import grpc.aio
    from tritonclient.grpc import service_pb2 as pb

    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )

        async def ask(number: int) -> int:
            from toolkit.bench.tensors import encode

            request = pb.ModelInferRequest(model_name=MODEL, id=str(number))
            for name, kind, value in (
                ("text_input", "BYTES", PROMPT),
                ("max_tokens", "INT32", TOKENS),
                ("stream", "BOOL", True),
            ):
                request.inputs.add(name=name, datatype=kind, shape=[1])
                request.raw_input_contents.append(encode(value, kind))
            stream, count = call(request), 0
            while (response := await stream.read()) is not grpc.aio.EOF:
                assert not response.error_message
                count += bool(response.infer_response.raw_output_contents[0])
            return count

        return await drive(ask)


def _inputs(library: object) -> list[object]:
    import numpy as np

    made = []
    for name, kind, value in (
        ("text_input", "BYTES", np.array([PROMPT.encode()], dtype=object)),
        ("max_tokens", "INT32", np.array([TOKENS], dtype=np.int32)),
        ("stream", "BOOL", np.array([True])),
    ):
        tensor = library.InferInput(name, [1], kind)  # type: ignore[attr-defined]
        tensor.set_data_from_numpy(value)
        made.append(tensor)
    return made


async def tritonclient_aio(address: str) -> int:
    """tritonclient's asyncio API."""
    import tritonclient.grpc
    import tritonclient.grpc.aio

    client = tritonclient.grpc.aio.InferenceServerClient(address)

    async def ask(number: int) -> int:
        async def requests():  # type: ignore[no-untyped-def]
            yield {
                "model_name": MODEL,
                "inputs": _inputs(tritonclient.grpc),
                "request_id": str(number),
            }

        count = 0
        async for result, error in client.stream_infer(requests()):
            assert error is None
            count += result.as_numpy("text_output") is not None
        return count

    try:
        return await drive(ask)
    finally:
        await client.close()


async def tritonclient_threads(address: str) -> int:
    """tritonclient's callback API: one stream for all requests, its own reader thread."""
    import tritonclient.grpc

    loop = asyncio.get_running_loop()
    ends: dict[str, asyncio.Future[int]] = {}
    counts: dict[str, int] = {}

    def on_response(result, error):  # type: ignore[no-untyped-def]
        assert error is None
        answer = result.get_response()
        counts[answer.id] = counts.get(answer.id, 0) + (result.as_numpy("text_output") is not None)
        if answer.parameters["triton_final_response"].bool_param:
            loop.call_soon_threadsafe(ends[answer.id].set_result, counts[answer.id])

    client = tritonclient.grpc.InferenceServerClient(address)
    client.start_stream(on_response)

    async def ask(number: int) -> int:
        ends[str(number)] = loop.create_future()
        client.async_stream_infer(MODEL, _inputs(tritonclient.grpc), request_id=str(number))
        return await ends[str(number)]

    try:
        return await drive(ask)
    finally:
        client.stop_stream()


VARIANTS: dict[str, Callable[[str, str], Awaitable[int]]] = {
    "toolkit, gRPC": lambda grpc, http: toolkit_client(f"grpc://{grpc}", "grpc"),
    "toolkit, HTTP generate_stream": lambda grpc, http: toolkit_client(http, "http-stream"),
    "grpcio, asyncio": lambda grpc, http: grpcio_aio(grpc),
    "tritonclient, asyncio": lambda grpc, http: tritonclient_aio(grpc),
    "tritonclient, one stream and callbacks": lambda grpc, http: tritonclient_threads(grpc),
}


def measure(variant: str, grpc: str, http: str) -> None:
    """Run one variant twice, the first time to load its libraries; print what the second took."""
    asyncio.run(VARIANTS[variant](grpc, http))
    before = resource.getrusage(resource.RUSAGE_SELF)
    responses = asyncio.run(VARIANTS[variant](grpc, http))
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert responses == REQUESTS * TOKENS, responses
    print(json.dumps(used / responses * 10_000))


def compare(rounds: int) -> None:
    """All variants, interleaved, on one server; prints a table."""
    from toolkit.progress import Silent
    from toolkit.serving import deploy, install
    from toolkit.serving.launch import LaunchPlan
    from toolkit.spec.models import Ports

    binary = install.install_server(Silent())
    models = ROOT / "tests" / "bench" / "triton_models"
    plan = LaunchPlan(
        name=MODEL,
        repository=models,
        repository_digest=deploy.repository_digest(models),
        executable=binary.executable,
        backends=binary.backends,
        host="127.0.0.1",
        ports=Ports(http=0, grpc=0, metrics=0),
        ready_timeout=120,
        drain_timeout=10,
        max_batch_size=CONCURRENCY,
        environment={"BENCH_ECHO_TICK_MS": TICK_MS},
    )
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with (
        tempfile.TemporaryDirectory() as state,
        deploy.start(plan, Path(state), progress=Silent(), tied=True) as server,
    ):
        for _ in range(rounds):
            for name in VARIANTS:
                command = [sys.executable, __file__, "--variant", name]
                command += ["--grpc", server.grpc_url, "--http", server.http_url]
                output = subprocess.run(command, check=True, capture_output=True, text=True)
                found[name].append(float(output.stdout))
    print(f"{datetime.now(timezone.utc):%Y-%m-%d}, Python {platform.python_version()}, ", end="")
    print(f"{CONCURRENCY} streams, a response each {TICK_MS} ms, {rounds} rounds\n")
    print("| client | CPU s per 10,000 responses, median | lowest | highest |")
    print("| --- | ---: | ---: | ---: |")
    for name, values in found.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.2f} | {min(values):.2f} | {max(values):.2f} |")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--grpc", default="")
    parser.add_argument("--http", default="")
    options = parser.parse_args()
    if options.variant:
        measure(options.variant, options.grpc, options.http)
    else:
        compare(options.rounds)


if __name__ == "__main__":
    main()
