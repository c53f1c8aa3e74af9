"""transformers' ``generate`` behind the smallest OpenAI server that can be measured.

Runs in an environment with torch, transformers, starlette and uvicorn. Nothing but ``generate``
works on the prompts: a batch is made of what waits when the last one has ended, at most
``--batch`` requests, padded to the longest prompt, and goes on until its longest answer is
complete (static batching); ``--batch 1`` serves one request at a time. Tokens are streamed as
they come, by the hook that ``generate`` has for that. No cache outlives a batch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import threading
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from tokenizers.decoders import DecodeStream
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer


@dataclass
class Call:
    """One request; its pieces of text go to ``out``, and None when it has ended."""

    prompt: list[int]
    most: int
    least: int
    loop: asyncio.AbstractEventLoop
    out: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    text: DecodeStream = field(default_factory=lambda: DecodeStream(skip_special_tokens=True))
    tokens: int = 0
    done: bool = False

    def send(self, piece: str | None) -> None:
        """Hand over to the event loop."""
        self.loop.call_soon_threadsafe(self.out.put_nowait, piece)


class Batch(BaseStreamer, LogitsProcessor):
    """Follows a call of ``generate``: sends tokens and keeps minimum lengths."""

    def __init__(self, calls: list[Call], tokenizer: Any, ends: set[int]) -> None:
        self._calls, self._tokenizer, self._ends = calls, tokenizer, ends
        self._prompts_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Prompts come first, then a token of each sequence at every step."""
        if not self._prompts_seen:
            self._prompts_seen = True
            return
        for call, token in zip(self._calls, value.tolist(), strict=True):
            if not call.done:
                self._take(call, token)

    def _take(self, call: Call, token: int) -> None:
        call.tokens += 1
        if token not in self._ends:
            piece = call.text.step(self._tokenizer.backend_tokenizer, token)
            if piece:
                call.send(piece)
        if token in self._ends or call.tokens >= call.most:
            call.done = True
            call.send(None)

    def end(self) -> None:
        """Nothing is left to send."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Forbid the end of text where an answer is too short yet."""
        short = [row for row, call in enumerate(self._calls) if call.tokens < call.least]
        if short:
            scores[torch.tensor(short)[:, None], torch.tensor(sorted(self._ends))] = -torch.inf
        return scores


class AllDone(StoppingCriteria):
    """A static batch ends with its last member."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """The same answer for all sequences."""
        return torch.full((len(self._calls),), all(call.done for call in self._calls))


class Generator:
    """A thread that takes waiting calls and generates for them."""

    def __init__(self, folder: str, most: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        ends = self._model.generation_config.eos_token_id
        self._ends = {ends} if isinstance(ends, int) else set(ends or ())
        self._model.generation_config.eos_token_id = None
        self._most = most
        self.waiting: queue.SimpleQueue[Call] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            while True:
                calls = [self.waiting.get()]
                while len(calls) < self._most and not self.waiting.empty():
                    calls.append(self.waiting.get())
                self._generate(calls)
        except BaseException:
            # Without this thread nobody is ever answered.
            traceback.print_exc()
            os._exit(1)

    @torch.inference_mode()
    def _generate(self, calls: list[Call]) -> None:
        padded = self.tokenizer.pad({"input_ids": [c.prompt for c in calls]}, return_tensors="pt")
        batch = Batch(calls, self.tokenizer, self._ends)
        self._model.generate(
            **padded,
            do_sample=False,
            max_new_tokens=max(call.most for call in calls),
            streamer=batch,
            logits_processor=LogitsProcessorList([batch]),
            stopping_criteria=StoppingCriteriaList([AllDone(calls)]),
        )


def application(generator: Generator, name: str) -> Starlette:
    """``/v1/models`` and streamed ``/v1/completions``."""

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"}]})

    async def completions(request: Request) -> StreamingResponse:
        asked = await request.json()
        prompt = generator.tokenizer(asked["prompt"])["input_ids"]
        loop = asyncio.get_running_loop()
        call = Call(prompt, asked["max_tokens"], asked.get("min_tokens") or 0, loop)
        generator.waiting.put(call)
        return StreamingResponse(events(call), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/v1/completions", completions, methods=["POST"]),
        ]
    )


async def events(call: Call) -> AsyncIterator[bytes]:
    """The server-sent events of one answer."""
    while (piece := await call.out.get()) is not None:
        yield event({"choices": [{"index": 0, "text": piece, "finish_reason": None}]})
    reason = "length" if call.tokens >= call.most else "stop"
    yield event({"choices": [{"index": 0, "text": "", "finish_reason": reason}]})
    usage = {"prompt_tokens": len(call.prompt), "completion_tokens": call.tokens}
    yield event({"choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def main() -> None:
    """Load and serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    app = application(Generator(options.model, options.batch), options.name)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
