"""A replica that answers word by word from this process, and fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from toolkit.gateway.triton.capacity import Capacity
from toolkit.gateway.triton.failure import ReplicaFailure
from toolkit.gateway.work import Final, Piece, Sampling, Usage, Work
from toolkit.serving.metrics import Load


def work(
    identity: str, *, request_class: str = "interactive", tokens: int = 3, **more: object
) -> Work:
    """A request for so many tokens."""
    sampling = Sampling(max_tokens=tokens)
    prompt = tuple(range(8))
    return Work(identity, "chat", "hello", prompt, sampling, request_class, **more)  # type: ignore[arg-type]


class StandIn:
    """Each piece waits for :attr:`step` to be set, which it is unless a test clears it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.model = "chat"
        self.alive = True
        self.held: Capacity | None = None
        self.step = asyncio.Event()
        self.step.set()
        self.fail_at: int | None = None
        self.cause = ReplicaFailure("connection", "it broke")
        self.poison: frozenset[str] = frozenset()
        self.trouble: list[Exception] = []
        self.told = Load(None, None, None, None)
        self.asked: list[str] = []
        self.running: set[str] = set()
        self.closed: list[str] = []
        self._aborted: dict[str, Exception] = {}
        self._tasks: dict[str, asyncio.Task[object]] = {}

    async def open(self, timeout: float) -> None:
        if not self.alive:
            raise ReplicaFailure("connection", "nobody answers")

    async def capacity(self, timeout: float) -> Capacity | None:
        if self.trouble:
            raise self.trouble.pop()
        return self.held

    async def ready(self, timeout: float) -> bool:
        return self.alive

    async def load(self, timeout: float) -> Load | None:
        return self.told

    async def generate(
        self, work: Work, deadline_s: float | None = None
    ) -> AsyncGenerator[Piece, None]:
        self.asked.append(work.id)
        if work.id in self.poison:
            raise self.cause
        self.running.add(work.id)
        wanted = work.sampling.max_tokens or 1
        try:
            for number in range(wanted):
                await self._gate(work.id)
                if self.fail_at == number:
                    raise self.cause
                if number + 1 < wanted:
                    yield Piece(f"{number} ")
            usage = Usage(len(work.tokens), wanted)
            self.running.discard(work.id)
            yield Final(f"{wanted - 1}", finish_reason="length", usage=usage)
        finally:
            if work.id in self.running:
                self.closed.append(work.id)
                self.running.discard(work.id)

    async def _gate(self, identity: str) -> None:
        while not self.step.is_set():
            if identity in self._aborted:
                break
            await asyncio.sleep(0.005)
        if identity in self._aborted:
            raise self._aborted.pop(identity)
        await asyncio.sleep(0)

    def abort(self, request: str, reason: Exception) -> None:
        if request in self.running:
            self._aborted[request] = reason

    async def close(self) -> None:
        pass
