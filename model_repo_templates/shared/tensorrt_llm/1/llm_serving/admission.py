"""Order before an engine that serves in order of arrival.

The engine gets a window of requests, enough to keep it busy; the others wait here, so that
priorities count and a full queue is refused instead of growing.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from dataclasses import dataclass, field

from .engine_api import GenerationRequest, QueueFullError


@dataclass(order=True)
class _Entry:
    priority: int
    arrival: int
    request: GenerationRequest = field(compare=False)


class Admission:
    """Thread-safe; every request that is added ends with :meth:`finish`."""

    def __init__(self, window: int, max_batch_size: int, max_queue_size: int) -> None:
        """``window`` requests are inside at once; ``max_queue_size`` more than a batch may wait."""
        self._window = window
        self._places = max_batch_size + max_queue_size
        self._heap: list[_Entry] = []
        self._inside: set[int] = set()
        self._arrivals = itertools.count()
        self._lock = threading.Lock()

    @property
    def inside(self) -> int:
        """Requests that the engine has."""
        return len(self._inside)

    @property
    def waiting(self) -> int:
        """Requests that it has not got yet."""
        return len(self._heap)

    def add(self, request: GenerationRequest) -> None:
        """Queue a request.

        Raises:
            QueueFullError: as many wait as may.
        """
        with self._lock:
            if len(self._heap) + len(self._inside) >= self._places:
                raise QueueFullError(
                    f"{self._places} requests run or wait already (max_queue_size)"
                )
            entry = _Entry(request.priority, next(self._arrivals), request)
            heapq.heappush(self._heap, entry)

    def admit(self) -> list[GenerationRequest]:
        """The requests that fit into the window now, most urgent first."""
        admitted = []
        with self._lock:
            while self._heap and len(self._inside) < self._window:
                request = heapq.heappop(self._heap).request
                self._inside.add(request.request_id)
                admitted.append(request)
        return admitted

    def finish(self, request_id: int) -> None:
        """A request has ended, wherever it was."""
        with self._lock:
            if request_id in self._inside:
                self._inside.remove(request_id)
            else:
                self._heap = [e for e in self._heap if e.request.request_id != request_id]
                heapq.heapify(self._heap)
