"""The event loop around an LLM: requests in, chunks out, cancellations and deadlines between."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llm_serving.admission import Admission
from llm_serving.engine_api import EngineStats, FinishReason, GenerationRequest, TokenChunk

from .output import Progress
from .sampling import Call, RequestWriter
from .settings import LlmApiSettings
from .statistics import Statistics

OnChunks = Callable[[list[TokenChunk]], None]

_LOOK_S = 0.25
"""Seconds between two looks at the executor's statistics."""


@dataclass
class _Open:
    progress: Progress
    call: Call
    result: Any = None
    tasks: list[asyncio.Task[None] | asyncio.TimerHandle] = field(default_factory=list)


class LlmApiEngine:
    """Implements :class:`llm_serving.engine_api.Engine`."""

    def __init__(
        self, settings: LlmApiSettings, make_llm: Callable[[], Any], writer: RequestWriter
    ) -> None:
        self._make_llm = make_llm
        self._writer = writer
        # A few more than a batch are inside, so that a place that falls free is taken at once.
        window = settings.max_batch_size + max(2, settings.max_batch_size // 8)
        self._admission = Admission(window, settings.max_batch_size, settings.max_queue_size)
        self._statistics = Statistics(settings.max_batch_size)
        self._open: dict[int, _Open] = {}
        self._llm: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._closing: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._on_chunks: OnChunks = lambda _: None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self, on_chunks: OnChunks) -> None:
        """Load the model and start the loop; returns when requests can come.

        Raises:
            RuntimeError: the model could not be loaded.
        """
        self._on_chunks = on_chunks
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise RuntimeError(f"the LLM did not start: {self._failure!r}") from self._failure

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request; see the protocol."""
        opened = _Open(Progress(request), self._writer.call(request))
        self._admission.add(request)
        self._open[request.request_id] = opened
        self._soon(self._admit)
        if request.deadline is not None:
            self._soon(self._end_at, request.request_id, request.deadline)

    def cancel(self, request_id: int) -> None:
        """End a request; see the protocol."""
        self._soon(self._abort, request_id, "cancelled")

    def stats(self) -> EngineStats:
        """A snapshot; the executor's own figures are those of its last iteration."""
        return self._statistics.stats(self._admission.inside, self._admission.waiting)

    def close(self) -> None:
        """End everything with an error chunk and join the thread."""
        if self._closing is not None:
            self._soon(self._closing.set)
        if self._thread.is_alive():
            self._thread.join()

    def _soon(self, function: Callable[..., Any], *arguments: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._started.set()
            raise

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._llm = await self._loop.run_in_executor(None, self._make_llm)
        watching = asyncio.create_task(self._watch_statistics())
        self._started.set()
        try:
            await self._closing.wait()
        finally:
            watching.cancel()
            for request_id in list(self._open):
                self._abort(request_id, "error", "the engine is shutting down")
        if self._failure is not None:
            # An executor that has died may never answer a shutdown; the process is ended instead.
            raise self._failure
        await self._loop.run_in_executor(None, self._llm.shutdown)

    def _admit(self) -> None:
        for request in self._admission.admit():
            opened = self._open.get(request.request_id)
            if opened is not None:
                opened.tasks.append(asyncio.create_task(self._generate(opened)))

    async def _generate(self, opened: _Open) -> None:
        request_id = opened.progress.request.request_id
        try:
            opened.result = self._llm.generate_async(**opened.call.arguments())
            async for step in opened.result:
                chunk = opened.progress.take(step)
                if chunk is not None:
                    self._give(chunk)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._give(opened.progress.end("error", f"the engine refused it: {error}"))
            if not _is_about_one_request(error):
                self._fail(error)
        finally:
            self._forget(request_id)

    def _give(self, chunk: TokenChunk) -> None:
        if chunk.request_id in self._open:
            if chunk.finish is not None:
                self._forget(chunk.request_id)
            self._on_chunks([chunk])

    def _forget(self, request_id: int) -> None:
        opened = self._open.pop(request_id, None)
        if opened is None:
            return
        for task in opened.tasks:
            if isinstance(task, asyncio.TimerHandle):
                task.cancel()
        self._admission.finish(request_id)
        self._admit()

    def _end_at(self, request_id: int, deadline: float) -> None:
        opened, loop = self._open.get(request_id), self._loop
        if opened is not None and loop is not None:
            delay = max(0.0, deadline - time.monotonic())
            opened.tasks.append(loop.call_later(delay, self._abort, request_id, "deadline"))

    def _abort(self, request_id: int, reason: FinishReason, error: str = "") -> None:
        """Answer at once: an aborted result need not give a last response in every release."""
        opened = self._open.get(request_id)
        if opened is None:
            return
        if opened.result is not None:
            opened.result.abort()
        self._give(opened.progress.end(reason, error))
        for task in opened.tasks:
            task.cancel()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None and self._closing is not None:
            self._failure = error
            self._closing.set()

    async def _watch_statistics(self) -> None:
        """Read what there is, over and over; there is nothing before the first request."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._admission.inside:
                async for record in self._llm.get_stats_async(timeout=_LOOK_S):
                    self._statistics.take(record)


def _is_about_one_request(error: BaseException) -> bool:
    from tensorrt_llm.executor.utils import RequestError

    return isinstance(error, RequestError | ValueError | TypeError)
