"""The engine's thread: takes requests and cancellations in, steps, hands chunks out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from llm_serving.engine_api import (
    EngineStats,
    FinishReason,
    GenerationRequest,
    QueueFullError,
    RequestRefusedError,
    TokenChunk,
    Usage,
)

from .config import EngineConfig
from .proposers import Proposer
from .runner import Runner
from .scheduler import Scheduler
from .sequence import Sequence
from .step import Stepper

OnChunks = Callable[[list[TokenChunk]], None]


class PagedEngine:
    """Implements :class:`llm_serving.engine_api.Engine`."""

    def __init__(
        self, config: EngineConfig, scheduler: Scheduler, runner: Runner, proposer: Proposer
    ) -> None:
        self._config = config
        self._scheduler = scheduler
        self._runner = runner
        self._stepper = Stepper(scheduler, runner, proposer, config.stream_interval)
        self._incoming: deque[Sequence] = deque()
        self._cancelled: set[int] = set()
        self._wake = threading.Condition()
        self._closing = False
        self._failed = False
        self._thread: threading.Thread | None = None

    def start(self, on_chunks: OnChunks) -> None:
        """Start the thread; see the protocol."""
        self._thread = threading.Thread(target=self._run, args=(on_chunks,), name="engine")
        self._thread.start()

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request; see the protocol."""
        self._refuse_misfits(request)
        now = time.monotonic()
        sequence = Sequence(
            request=request,
            tokens=list(request.prompt),
            limit=min(len(request.prompt) + request.sampling.max_tokens, self._config.max_seq_len),
            usage=Usage(prompt_tokens=len(request.prompt), arrived=now),
        )
        with self._wake:
            if self._closing or self._failed:
                raise QueueFullError("the engine is shutting down")
            waiting = len(self._incoming) + self._scheduler.waiting
            slots = self._config.max_batch_size - len(self._scheduler.running)
            if waiting - slots >= self._config.max_queue_size:
                raise QueueFullError(f"{waiting} requests wait already (max_queue_size)")
            self._incoming.append(sequence)
            self._wake.notify()

    def cancel(self, request_id: int) -> None:
        """End a request at the next step; see the protocol."""
        with self._wake:
            self._cancelled.add(request_id)
            self._wake.notify()

    def stats(self) -> EngineStats:
        """A snapshot; figures may be one step apart from each other."""
        counts, pool = self._stepper.counts, self._scheduler.pool
        running = len(self._scheduler.running)
        return EngineStats(
            running=running,
            waiting=self._scheduler.waiting + len(self._incoming),
            max_batch_size=self._config.max_batch_size,
            context_requests=counts.context_requests if running else 0,
            generation_requests=counts.generation_requests if running else 0,
            context_tokens=counts.context_tokens if running else 0,
            blocks_max=pool.count,
            blocks_used=pool.used,
            blocks_free=pool.free,
            tokens_per_block=pool.tokens_per_block,
            blocks_reused_total=pool.reused,
            blocks_looked_up_total=pool.looked_up,
            draft_tokens_total=counts.draft_tokens,
            accepted_draft_tokens_total=counts.accepted_draft_tokens,
            preemptions_total=self._scheduler.preemptions,
            iterations=counts.iterations,
            memory_bytes=self._runner.pool_bytes,
        )

    def close(self) -> None:
        """End everything with an error chunk and join the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread:
            self._thread.join()

    def _refuse_misfits(self, request: GenerationRequest) -> None:
        length, limit = len(request.prompt), self._config.max_input_len
        if not length:
            raise RequestRefusedError("the prompt is empty")
        if length > limit:
            raise RequestRefusedError(f"the prompt has {length} tokens, max_input_len is {limit}")
        if request.sampling.max_tokens < 1:
            raise RequestRefusedError("max_tokens must be at least 1")
        reach = min(length + request.sampling.max_tokens, self._config.max_seq_len)
        pool = self._scheduler.pool
        if pool.blocks_for(reach) > pool.count:
            raise RequestRefusedError(
                f"prompt and max_tokens need {pool.blocks_for(reach)} KV blocks, "
                f"the pool has {pool.count}"
            )

    def _run(self, on_chunks: OnChunks) -> None:
        try:
            while self._wait_for_work():
                chunks = self._end_overdue()
                chunks += self._stepper.step()
                if chunks:
                    on_chunks(chunks)
            on_chunks(self._end_all("the engine is shutting down"))
        except BaseException as error:
            self._failed = True
            on_chunks(self._end_all(f"engine failure: {error!r}"))
            raise

    def _wait_for_work(self) -> bool:
        """Take new requests in; sleep while there is nothing to do. False: time to end."""
        with self._wake:
            while not (self._closing or self._incoming or self._scheduler.everything()):
                self._cancelled.clear()
                self._wake.wait()
            self._take_in()
            return not self._closing

    def _take_in(self) -> None:
        while self._incoming:
            self._scheduler.add(self._incoming.popleft())

    def _end_overdue(self) -> list[TokenChunk]:
        with self._wake:
            # Whatever is cancelled has come before; its cancellation is looked at once only.
            self._take_in()
            cancelled, self._cancelled = self._cancelled, set()
        now = time.monotonic()
        chunks = []
        for sequence in self._scheduler.everything():
            deadline = sequence.request.deadline
            if sequence.request.request_id in cancelled:
                chunks.append(self._end(sequence, "cancelled"))
            elif deadline is not None and now > deadline:
                chunks.append(self._end(sequence, "deadline"))
        return chunks

    def _end_all(self, reason: str) -> list[TokenChunk]:
        with self._wake:
            self._take_in()
        return [self._end(s, "error", reason) for s in self._scheduler.everything()]

    def _end(self, sequence: Sequence, finish: FinishReason, error: str = "") -> TokenChunk:
        sequence.finish, sequence.error = finish, error
        return self._stepper.end(sequence)
