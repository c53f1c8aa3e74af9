"""Threads around the backend: one a running request, since each waits for its next response.

A thread of its own hands chunks on and watches deadlines, so that all of them come from one place.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from llm_serving.admission import Admission
from llm_serving.engine_api import (
    EngineStats,
    FinishReason,
    GenerationRequest,
    RequestRefusedError,
    TokenChunk,
    Usage,
)

from . import wire
from .call import BackendError, Call
from .generate import generate
from .settings import TritonEngineSettings

OnChunks = Callable[[list[TokenChunk]], None]

_NEVER = float("inf")


@dataclass
class _Running:
    """What ends one request early: its latest call, and a flag against starting another."""

    request: GenerationRequest
    usage: Usage
    call: Call | None = None
    ended: bool = False


class TritonEngine:
    """Implements :class:`llm_serving.engine_api.Engine`."""

    def __init__(self, settings: TritonEngineSettings) -> None:
        self._settings = settings
        # The backend batches for itself; a few more than a batch keep its queue from running dry.
        window = settings.max_batch_size + max(2, settings.max_batch_size // 8)
        self._admission = Admission(window, settings.max_batch_size, settings.max_queue_size)
        self._pool = ThreadPoolExecutor(window, thread_name_prefix="request")
        self._stopping = ThreadPoolExecutor(2, thread_name_prefix="stop")
        self._running: dict[int, _Running] = {}
        self._lock = threading.Lock()
        self._ready: queue.SimpleQueue[TokenChunk | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._drafted = 0
        self._accepted = 0

    def start(self, on_chunks: OnChunks) -> None:
        """Start the thread; see the protocol."""
        self._thread = threading.Thread(target=self._run, args=(on_chunks,), name="engine")
        self._thread.start()

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request; see the protocol."""
        self._refuse(request)
        self._admission.add(request)
        usage = Usage(prompt_tokens=len(request.prompt), arrived=time.monotonic())
        self._running[request.request_id] = _Running(request, usage)
        self._admit()

    def cancel(self, request_id: int) -> None:
        """End a request; see the protocol."""
        self._end(request_id, "cancelled")

    def stats(self) -> EngineStats:
        """A snapshot of this model's side; the backend exports its own metrics."""
        return EngineStats(
            running=self._admission.inside,
            waiting=self._admission.waiting,
            max_batch_size=self._settings.max_batch_size,
            draft_tokens_total=self._drafted,
            accepted_draft_tokens_total=self._accepted,
        )

    def close(self) -> None:
        """End everything with an error chunk and stop the threads."""
        for request_id in list(self._running):
            self._end(request_id, "error", "the engine is shutting down")
        self._pool.shutdown()
        self._stopping.shutdown()
        self._ready.put(None)
        if self._thread is not None:
            self._thread.join()

    def _refuse(self, request: GenerationRequest) -> None:
        settings, sampling = self._settings, request.sampling
        if request.guide is not None and not settings.guided_decoding:
            raise RequestRefusedError("guided_decoding_guide: the deployment has no such engine")
        if request.adapter is not None and request.adapter not in settings.adapters:
            known = ", ".join(settings.adapters)
            raise RequestRefusedError(f"lora_name: {request.adapter!r} is none of {known}")
        if settings.drafts_of(request):
            for name in ("presence_penalty", "frequency_penalty"):
                if getattr(sampling, name):
                    # Each round is a request of its own, which knows its own output only.
                    raise RequestRefusedError(
                        f"{name}: not together with a draft model; num_draft_tokens 0 goes without"
                    )

    def _admit(self) -> None:
        for request in self._admission.admit():
            self._pool.submit(self._serve, request)

    def _serve(self, request: GenerationRequest) -> None:
        running = self._running.get(request.request_id)
        try:
            if running is not None:
                self._generate(request, running)
        except _EndedError:
            pass
        except BackendError as error:
            busy = "the engine's queue is full, retry later: " if error.retryable else ""
            self._end(request.request_id, "error", f"{busy}{error}")
        except BaseException as error:
            self._end(request.request_id, "error", repr(error))
            raise
        finally:
            self._admission.finish(request.request_id)
            self._admit()

    def _generate(self, request: GenerationRequest, running: _Running) -> None:
        def start(model: str, arrays: wire.Arrays, outputs: tuple[str, ...]) -> Call:
            call = Call(model, arrays, outputs)
            with self._lock:
                if running.ended:
                    raise _EndedError
                running.call = call
            return call

        # A request that is ended goes on here until the backend has let go of it: only then is
        # its place in the batch free.
        for chunk in generate(request, self._settings, start, running.usage):
            with self._lock:
                if running.ended:
                    continue
                if chunk.finish is not None:
                    self._forget(running)
            if chunk.tokens or chunk.finish is not None:
                self._ready.put(chunk)

    def _end(self, request_id: int, reason: FinishReason, error: str = "") -> None:
        """Answer at once and let the backend end what it still computes."""
        with self._lock:
            running = self._running.get(request_id)
            if running is None:
                return
            self._forget(running)
            call = running.call
        self._ready.put(TokenChunk(request_id, finish=reason, usage=running.usage, error=error))
        if call is None:
            self._admission.finish(request_id)
        else:
            self._stopping.submit(call.stop)

    def _forget(self, running: _Running) -> None:
        running.ended = True
        del self._running[running.request.request_id]
        self._drafted += running.usage.draft_tokens
        self._accepted += running.usage.accepted_draft_tokens

    def _run(self, on_chunks: OnChunks) -> None:
        while True:
            try:
                chunk = self._ready.get(timeout=self._patience())
            except queue.Empty:
                for request_id in self._overdue():
                    self._end(request_id, "deadline")
                continue
            if chunk is None:
                return
            on_chunks([chunk])

    def _deadlines(self) -> dict[int, float]:
        return {
            request_id: running.request.deadline
            for request_id, running in list(self._running.items())
            if running.request.deadline is not None
        }

    def _patience(self) -> float:
        """Seconds until a deadline passes; new requests may bring nearer ones."""
        nearest = min(self._deadlines().values(), default=_NEVER)
        return max(0.0, min(nearest - time.monotonic(), 0.1))

    def _overdue(self) -> list[int]:
        now = time.monotonic()
        return [request_id for request_id, at in self._deadlines().items() if at <= now]


class _EndedError(Exception):
    """The request was ended while its next call was prepared."""
