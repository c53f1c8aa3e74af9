"""Several models behind one API: each has its dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from toolkit.gateway.dispatch.dispatcher import Dispatcher
from toolkit.gateway.work import Piece, Work


class Models:
    """Implements :class:`toolkit.gateway.work.Generator` for every model by name."""

    def __init__(self, dispatchers: Mapping[str, Dispatcher]) -> None:
        self.dispatchers = dict(dispatchers)

    def generate(self, work: Work) -> AsyncGenerator[Piece, None]:
        """See :meth:`Dispatcher.generate`; the API has checked that the model is there."""
        return self.dispatchers[work.model].generate(work)

    @property
    def ready(self) -> bool:
        """Whether every model takes work."""
        return all(each.ready for each in self.dispatchers.values())

    async def start(self) -> None:
        """Begin to watch every replica."""
        for each in self.dispatchers.values():
            await each.start()

    async def drain(self, timeout: float) -> None:
        """Let end what runs, for so many seconds."""
        await asyncio.gather(*(each.drain(timeout) for each in self.dispatchers.values()))

    async def close(self) -> None:
        """Let go of every replica."""
        for each in self.dispatchers.values():
            await each.close()
