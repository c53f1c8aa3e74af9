"""An OpenAI server that generates nothing: its tokens come when they are told to.

    python benchmarks/peers/paced_server.py --port 9001 --ttft-ms 150 --itl-ms 25

What a client should measure against it is therefore known. The times are those at which it writes;
``GET /lateness`` tells by how many ms it was behind them at the median, on a machine with too
little time for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route


@dataclass
class Pace:
    """When tokens come, in seconds; and how late they were."""

    first: float
    each: float
    late: list[float] = field(default_factory=list)

    async def tokens(self, start: float, count: int) -> AsyncIterator[int]:
        """Numbers of tokens, each when it is due."""
        loop = asyncio.get_running_loop()
        for number in range(count):
            due = start + self.first + number * self.each
            await asyncio.sleep(max(0.0, due - loop.time()))
            self.late.append(loop.time() - due)
            yield number


def application(name: str, pace: Pace) -> Starlette:
    """``/v1/models``, streamed ``/v1/completions`` and ``/lateness``."""

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"}]})

    async def lateness(_: Request) -> JSONResponse:
        late, pace.late = pace.late, []
        return JSONResponse({"p50_ms": 1000 * statistics.median(late) if late else 0.0})

    async def completions(request: Request) -> StreamingResponse:
        start = asyncio.get_running_loop().time()
        asked = await request.json()
        words = len(asked["prompt"].split())
        answer = events(pace, start, words, asked["max_tokens"])
        return StreamingResponse(answer, media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/lateness", lateness),
            Route("/v1/completions", completions, methods=["POST"]),
        ]
    )


async def events(pace: Pace, start: float, prompt: int, count: int) -> AsyncIterator[bytes]:
    """The server-sent events of one answer."""
    async for number in pace.tokens(start, count):
        reason = "length" if number == count - 1 else None
        choice = {"index": 0, "text": " word", "finish_reason": reason}
        yield _event({"choices": [choice]})
    usage = {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}
    yield _event({"choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _event(body: dict[str, object]) -> bytes:
    whole = {"id": "cmpl-0", "object": "text_completion", "model": "paced", **body}
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="paced")
    parser.add_argument("--ttft-ms", type=float, default=150.0)
    parser.add_argument("--itl-ms", type=float, default=25.0)
    options = parser.parse_args()
    app = application(options.name, Pace(options.ttft_ms / 1000, options.itl_ms / 1000))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
