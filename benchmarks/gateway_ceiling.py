"""What the gateway's API itself can do: tokens and requests a second from one process.

Behind the API stands a generator that has its answer ready, so that nothing but the API, the
server and the kernel is measured. The client is a process of its own, the toolkit's lean one,
pinned to another core where there are two:

    python benchmarks/gateway_ceiling.py TOKENIZER_FOLDER [--rounds 3]

Processor seconds are those of the gateway's process, so that "per core" does not depend on how
busy the client keeps it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import socket
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MODEL = "null"
TOKENS = 256
STREAMS = 64


@dataclass(frozen=True)
class Case:
    """One kind of load: ``requests`` in all, ``streams`` at a time."""

    name: str
    path: str
    body: dict[str, Any]
    requests: int
    streams: int
    tokens: int


CASES = (
    Case("chat, streamed", "/v1/chat/completions", {"stream": True}, 256, STREAMS, TOKENS),
    Case("text, streamed", "/v1/completions", {"stream": True}, 256, STREAMS, TOKENS),
    Case("chat, streamed, one token", "/v1/chat/completions", {"stream": True}, 3000, STREAMS, 1),
    Case("chat, whole, one token", "/v1/chat/completions", {}, 3000, STREAMS, 1),
)


def gateway(folder: Path, port: Connection, core: int | None) -> None:
    """The process under test."""
    import uvicorn

    from toolkit.gateway.openai import GatewayProtocol, ServedModel, create_app
    from toolkit.gateway.work import Final, Piece, Usage, Work

    class Null:
        """Has every token ready, but lets the others run after each: a stream, not a lump."""

        async def generate(self, work: Work) -> AsyncGenerator[Piece, None]:
            count = work.sampling.max_tokens or 1
            piece = Piece(" token")
            for _ in range(count - 1):
                yield piece
                await asyncio.sleep(0)
            usage = Usage(len(work.tokens), count)
            yield Final(" token", finish_reason="length", usage=usage)

    _pin(core)
    model = ServedModel.load(folder, name=MODEL, max_input_len=1792, max_seq_len=2048)
    config = uvicorn.Config(
        create_app({MODEL: model}, Null()),
        http=GatewayProtocol,
        loop="uvloop",
        log_level="warning",
        access_log=False,
        lifespan="off",
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    port.send(listener.getsockname()[1])
    asyncio.run(_serve(uvicorn.Server(config), listener, port))


async def _serve(server: Any, listener: Any, port: Connection) -> None:
    """Serve, and tell the processor time whenever it is asked for."""
    loop = asyncio.get_running_loop()
    loop.add_reader(port.fileno(), lambda: (port.recv(), port.send(time.process_time())))
    await server.serve(sockets=[listener])


def _pin(core: int | None) -> None:
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


class _Ended:
    """Waits for the end of one answer and counts its events."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.events = 0

    def on_body(self, data: bytes, when: float) -> None:
        self.events += data.count(b"data: ")

    def on_end(self, status: int, error: str) -> None:
        if status != 200 or error:
            self.done.set_exception(RuntimeError(f"{status} {error}"))
        else:
            self.done.set_result(None)


async def load(port: int, case: Case) -> int:
    """All requests of ``case``; the events that came."""
    from toolkit.bench.http1 import HttpConnection

    body = {"model": MODEL, "max_tokens": case.tokens, **case.body}
    if "chat" in case.path:
        body["messages"] = [{"role": "user", "content": "Say something, please."}]
    else:
        body["prompt"] = "Say something, please."
    data, left = json.dumps(body).encode(), iter(range(case.requests))

    async def user() -> int:
        connection = await HttpConnection.connect("127.0.0.1", port)
        seen = 0
        for _ in left:
            ended = _Ended()
            connection.send("POST", case.path, data, ended)
            await ended.done
            seen += ended.events
        connection.close()
        return seen

    return sum(await asyncio.gather(*(user() for _ in range(case.streams))))


def measure(port: int, link: Connection, case: Case) -> tuple[float, float]:
    """Seconds that passed, and processor seconds of the gateway."""
    link.send(None)
    before, start = link.recv(), time.perf_counter()
    events = asyncio.run(load(port, case))
    passed = time.perf_counter() - start
    link.send(None)
    if "stream" in case.body:
        assert events >= case.requests * case.tokens
    return passed, link.recv() - before


def main() -> None:
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pinned = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=gateway, args=(options.tokenizer, theirs, pinned[0]), daemon=True
    )
    process.start()
    try:
        _pin(pinned[1])
        port = ours.recv()
        time.sleep(1)
        print(
            f"{platform.processor() or platform.machine()}, {len(cores)} cores, "
            f"Python {platform.python_version()}, median of {options.rounds}"
        )
        print("| case | tokens/s | requests/s | tokens/s per core | requests/s per core |")
        print("|---|---|---|---|---|")
        for case in CASES:
            measure(port, ours, case)
            rounds = [measure(port, ours, case) for _ in range(options.rounds)]
            passed = statistics.median(each[0] for each in rounds)
            busy = statistics.median(each[1] for each in rounds)
            tokens = case.requests * case.tokens
            print(
                f"| {case.name} | {tokens / passed:,.0f} | {case.requests / passed:,.0f} "
                f"| {tokens / busy:,.0f} | {case.requests / busy:,.0f} |"
            )
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
