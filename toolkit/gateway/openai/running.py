"""Runs the sequences of one request, as long as somebody is there to take them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from toolkit.gateway.openai.exchange import ClientGone, Exchange
from toolkit.gateway.work import Final, GatewayError, Generator, Piece, Work


class Sink(Protocol):
    """Takes what comes; runs on the event loop and must not wait."""

    @property
    def complete(self) -> bool:
        """The answer is sent: a client that goes now has not gone early."""

    def piece(self, index: int, piece: Piece) -> None:
        """More of the sequence ``index``."""


class Run:
    """All sequences of a request: they end together.

    The first that fails, and a client that leaves, close the generators of the others, which
    takes them out of the queue or the engine.
    """

    def __init__(self, generator: Generator, exchange: Exchange) -> None:
        self._generator = generator
        self._exchange = exchange
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open = 0

    async def __call__(self, works: Sequence[Work], sink: Sink) -> None:
        """Run ``works``, each piece going to ``sink``.

        Raises:
            GatewayError: one of them was refused or has failed.
            ClientGone: nobody is there any more.
        """
        self._open = len(works)
        tasks = [asyncio.ensure_future(self._follow(*one, sink)) for one in enumerate(works)]
        for task in tasks:
            task.add_done_callback(self._ended)
        watcher = asyncio.ensure_future(self._watch(sink))
        try:
            await self._end
        finally:
            watcher.cancel()
            left = [task for task in tasks if not task.done()]
            for task in left:
                task.cancel()
            if left:
                await asyncio.gather(*left, return_exceptions=True)

    def fail(self, error: Exception) -> None:
        """End everything with ``error``, unless it has ended already."""
        if not self._end.done():
            self._end.set_exception(error)

    async def _follow(self, index: int, work: Work, sink: Sink) -> None:
        pieces = self._generator.generate(work)
        piece: Piece | None = None
        try:
            async for piece in pieces:
                sink.piece(index, piece)
        finally:
            await pieces.aclose()
        if not isinstance(piece, Final):
            raise GatewayError(
                502, "The engine broke its answer off.", kind="server_error", code="engine_failed"
            )

    async def _watch(self, sink: Sink) -> None:
        await self._exchange.gone()
        if not sink.complete:
            self.fail(ClientGone())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open -= 1
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Exception):
            self.fail(error)
        elif self._open == 0 and not self._end.done():
            self._end.set_result(None)
