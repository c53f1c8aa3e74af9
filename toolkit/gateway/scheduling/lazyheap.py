"""A heap whose entries can be taken out from the middle, in bounded memory."""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

T = TypeVar("T")

_SLACK = 32


class LazyHeap(Generic[T]):
    """Items by key, equal keys in the order they came; each item has a name of its own.

    A discarded item stays in the heap as a dead entry until it surfaces; when the dead outnumber
    the living the heap is built anew, so that it never holds more than twice what is alive.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, T]] = []
        self._alive: dict[str, int] = {}
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._alive)

    def push(self, key: float, name: str, item: T) -> None:
        """Put an item in, instead of the one of this name if there is one."""
        serial = next(self._serial)
        self._alive[name] = serial
        heapq.heappush(self._heap, (key, serial, name, item))
        self._compact()

    def discard(self, name: str) -> None:
        """Take an item out; does nothing if it is not there."""
        if self._alive.pop(name, None) is not None:
            self._compact()

    def first(self) -> tuple[float, T] | None:
        """The smallest key and its item, which stays."""
        heap = self._heap
        while heap:
            key, serial, name, item = heap[0]
            if self._alive.get(name) == serial:
                return key, item
            heapq.heappop(heap)
        return None

    def smallest(self, count: int) -> list[T]:
        """The first items in order, without taking any out.

        Walks the heap from its root, so the cost follows ``count`` and the dead among them, not
        the size.
        """
        self.first()  # drops the dead at the root
        found: list[T] = []
        heap = self._heap
        edge = [(*heap[0][:2], 0)] if heap else []
        while edge and len(found) < count:
            _, serial, at = heapq.heappop(edge)
            if self._alive.get(heap[at][2]) == serial:
                found.append(heap[at][3])
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(heap):
                    heapq.heappush(edge, (*heap[child][:2], child))
        return found

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._alive) + _SLACK:
            self._heap = [e for e in self._heap if self._alive.get(e[2]) == e[1]]
            heapq.heapify(self._heap)
