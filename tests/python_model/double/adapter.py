"""An engine for tests: says the prompt's own tokens over and over, one a step and request.

It keeps the engine protocol (batch limit, queue limit, cancellation, deadlines, usage), so the
model around it can be tested without a network. ``fail_seed`` makes its thread die.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_serving.engine_api import (
    Engine,
    EngineStats,
    GenerationRequest,
    QueueFullError,
    TokenChunk,
    Usage,
)


def create_engine(settings: dict[str, Any], model_dir: Path, instance: str) -> Engine:
    """The double; only these settings matter to it."""
    return EchoEngine(
        max_batch_size=settings["max_batch_size"],
        max_queue_size=settings["max_queue_size"],
        step_s=settings.get("step_s", 0.002),
    )


class EchoEngine:
    fail_seed = 666

    def __init__(self, max_batch_size: int, max_queue_size: int, step_s: float) -> None:
        self._batch, self._queue, self._step_s = max_batch_size, max_queue_size, step_s
        self._waiting: deque[GenerationRequest] = deque()
        self._running: dict[int, tuple[GenerationRequest, Usage]] = {}
        self._cancelled: set[int] = set()
        self._wake = threading.Condition()
        self._closing = False
        self._iterations = 0
        self._thread: threading.Thread | None = None

    def start(self, on_chunks: Callable[[list[TokenChunk]], None]) -> None:
        self._thread = threading.Thread(target=self._run, args=(on_chunks,), daemon=True)
        self._thread.start()

    def submit(self, request: GenerationRequest) -> None:
        with self._wake:
            places = self._batch - len(self._running)
            if len(self._waiting) - places >= self._queue:
                raise QueueFullError(f"{len(self._waiting)} requests wait already (max_queue_size)")
            self._waiting.append(request)
            self._wake.notify()

    def cancel(self, request_id: int) -> None:
        with self._wake:
            self._cancelled.add(request_id)

    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self._running),
            waiting=len(self._waiting),
            max_batch_size=self._batch,
            blocks_max=100,
            blocks_used=len(self._running),
            blocks_free=100 - len(self._running),
            tokens_per_block=32,
            iterations=self._iterations,
        )

    def close(self) -> None:
        self._closing = True
        with self._wake:
            self._wake.notify()
        if self._thread:
            self._thread.join()

    def _run(self, on_chunks: Callable[[list[TokenChunk]], None]) -> None:
        next_step = time.monotonic()
        while not self._closing:
            with self._wake:
                while not (self._waiting or self._running or self._closing):
                    self._wake.wait()
                    next_step = time.monotonic()
                self._admit()
                cancelled, self._cancelled = self._cancelled, set()
            next_step = max(next_step + self._step_s, time.monotonic())
            time.sleep(max(0.0, next_step - time.monotonic()))
            self._iterations += 1
            on_chunks([self._advance(each, cancelled) for each in list(self._running)])
        on_chunks([TokenChunk(each, finish="error", error="closing") for each in self._running])

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._batch:
            request = self._waiting.popleft()
            now = time.monotonic()
            usage = Usage(
                prompt_tokens=len(request.prompt),
                kv_blocks_total=-(-len(request.prompt) // 32),
                arrived=now,
                first_scheduled=now,
            )
            self._running[request.request_id] = (request, usage)

    def _advance(self, request_id: int, cancelled: set[int]) -> TokenChunk:
        request, usage = self._running[request_id]
        sampling = request.sampling
        if sampling.seed == self.fail_seed:
            raise RuntimeError("told to fail")
        chunk = TokenChunk(request_id)
        now = time.monotonic()
        if request_id in cancelled:
            chunk.finish = "cancelled"
        elif request.deadline is not None and now > request.deadline:
            chunk.finish = "deadline"
        else:
            token = request.prompt[usage.output_tokens % len(request.prompt)]
            if token in sampling.stop_token_ids and usage.output_tokens >= sampling.min_tokens:
                chunk.finish = "stop"
            else:
                chunk.tokens.append(token)
                if sampling.log_probs:
                    chunk.log_probs.append(-0.5)
                usage.output_tokens += 1
                usage.first_token = usage.first_token or now
                usage.last_token = now
                if usage.output_tokens >= sampling.max_tokens:
                    chunk.finish = "length"
        if chunk.finish:
            chunk.usage = usage
            del self._running[request_id]
        return chunk
