"""Sends a streamed answer without ever waiting for the client, and without hoarding for it."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Generator
from typing import Any

from toolkit.gateway.openai.exchange import ClientTooSlow, Send


class Outlet:
    """The way to one client.

    While :attr:`ready`, :meth:`send` hands bytes to the server at once, without a task of its
    own: that is every token of every stream. When the server makes it wait, because the client
    does not read, the rest of that one call runs in a task, ``on_ready`` is called at its end,
    and until then the caller keeps (and merges) what comes.

    Args:
        send: ASGI's.
        stall_timeout: Seconds that the server may make us wait.
        on_ready: More can be sent.
        on_stuck: The client is to be given up.
    """

    def __init__(
        self,
        send: Send,
        *,
        stall_timeout: float,
        on_ready: Callable[[], None],
        on_stuck: Callable[[Exception], None],
    ) -> None:
        self._send = send
        self._stall_timeout = stall_timeout
        self._on_ready = on_ready
        self._on_stuck = on_stuck
        self._waiting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether the server takes more at once."""
        return self._waiting is None and self._error is None

    def send(self, body: bytes) -> None:
        """Send a part of the answer; only while :attr:`ready`."""
        self.message({"type": "http.response.body", "body": body, "more_body": True})

    def message(self, message: dict[str, Any]) -> None:
        """Send any ASGI message; only while :attr:`ready`."""
        sending = self._send(message).__await__()
        first = _step(next, sending)
        if first is _ENDED:
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._stall_timeout, self._stalled)
        self._waiting = loop.create_task(_resumed(sending, first))
        self._waiting.add_done_callback(self._sent)

    async def drained(self) -> None:
        """Wait until the server has taken what was sent.

        Raises:
            ClientTooSlow: it did not.
        """
        while self._waiting is not None and self._error is None:
            await asyncio.wait([self._waiting])
            # The task's callback runs after this: it may send more.
            await asyncio.sleep(0)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Forget what is on its way."""
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting is not None:
            self._waiting.cancel()

    def _sent(self, task: asyncio.Task[None]) -> None:
        assert self._timer is not None
        self._timer.cancel()
        self._waiting = None
        if task.cancelled():
            self._error = self._error or ClientTooSlow()
            return
        error = task.exception()
        if isinstance(error, Exception):
            self._give_up(error)
        else:
            self._on_ready()

    def _stalled(self) -> None:
        self._give_up(ClientTooSlow(f"took nothing for {self._stall_timeout:g} s"))

    def _give_up(self, error: Exception) -> None:
        self._error = error
        self.close()
        self._on_stuck(error)


async def _resumed(sending: Generator[Any, Any, None], waits_for: Any) -> None:
    await _rest(sending, waits_for)


@types.coroutine
def _rest(sending: Generator[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """What is left of a call that was begun outside a task, to be run in one.

    Python 3.12's eager tasks do the same; older versions have none.
    """
    while waits_for is not _ENDED:
        try:
            value = yield waits_for
        except BaseException as error:
            waits_for = _step(sending.throw, error)
        else:
            waits_for = _step(sending.send, value)


_ENDED = object()


def _step(resume: Callable[[Any], Any], value: Any) -> Any:
    """What the call waits for next, or that it has ended."""
    try:
        return resume(value)
    except StopIteration:
        return _ENDED
