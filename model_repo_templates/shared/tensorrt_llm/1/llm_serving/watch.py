"""The thread that looks after cancellations, metrics and the engine's life.

Asking the server whether a request was cancelled is a message to another process (about
0.1 ms), so a round asks for some of the streams only, in turn.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from itertools import islice

from .engine_api import Engine
from .metrics import Metrics
from .sender import Sender
from .settings import Housekeeping
from .stream import Stream

_ASKS_PER_SECOND_AND_CORE = 50


class EngineDeadError(RuntimeError):
    """The engine's thread has ended by itself."""


class Watch:
    """Calls ``on_failure`` once if the engine dies."""

    def __init__(
        self,
        settings: Housekeeping,
        engine: Engine,
        sender: Sender,
        metrics: Metrics,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._sender = sender
        self._metrics = metrics
        self._on_failure = on_failure
        self._asks = max(
            1,
            round(
                _ASKS_PER_SECOND_AND_CORE
                * len(os.sched_getaffinity(0))
                * settings.cancellation_period_s
            ),
        )
        self._asked = -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.engine_thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        next_metrics = 0.0
        try:
            while not self._stop.wait(self._settings.cancellation_period_s):
                self._check_engine()
                self._cancel_abandoned()
                if time.monotonic() >= next_metrics:
                    next_metrics = time.monotonic() + self._settings.metrics_period_s
                    self._metrics.update(self._engine.stats(), self._sender.totals)
        except BaseException as error:
            self._on_failure(error)

    def _check_engine(self) -> None:
        if self.engine_thread and not self.engine_thread.is_alive():
            raise EngineDeadError("the engine's thread has died")

    def _cancel_abandoned(self) -> None:
        for stream in self._next_streams():
            self._asked = stream.request_id
            if stream.cancelled():
                self._engine.cancel(stream.request_id)

    def _next_streams(self) -> Iterable[Stream]:
        """The streams after the one that was asked last, then from the start again."""
        streams = list(self._sender.streams.values())
        later = [stream for stream in streams if stream.request_id > self._asked]
        earlier = [stream for stream in streams if stream.request_id <= self._asked]
        return islice([*later, *earlier], self._asks)
