"""What the dispatcher needs of a replica, and the watch over each one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from toolkit.gateway.dispatch.health import Health, HealthPolicy
from toolkit.gateway.triton.capacity import Capacity
from toolkit.gateway.triton.failure import ReplicaFailure
from toolkit.gateway.work import Piece, Work
from toolkit.serving.metrics import Load

_LOG = logging.getLogger(__name__)


_MOVING = 2.0


class Replica(Protocol):
    """One server of one model; :class:`toolkit.gateway.triton.TritonReplica` is one."""

    @property
    def address(self) -> str:
        """Where it is: also its name."""

    @property
    def model(self) -> str:
        """What it serves."""

    async def open(self, timeout: float) -> None:
        """Connect.

        Raises:
            ReplicaFailure: not within ``timeout`` seconds.
        """

    async def capacity(self, timeout: float) -> Capacity | None:
        """What it holds, where it tells."""

    async def ready(self, timeout: float) -> bool:
        """Whether it would take a request."""

    async def load(self, timeout: float) -> Load | None:
        """What its engine is doing, where it tells."""

    def generate(self, work: Work, deadline_s: float | None = None) -> AsyncGenerator[Piece, None]:
        """Pieces of the answer; closing it cancels the request.

        Raises:
            ReplicaFailure: it failed.
            GatewayError: the request itself is at fault, or :meth:`abort` gave a reason.
        """

    def abort(self, request: str, reason: Exception) -> None:
        """Cancel a running request, whose generator then raises ``reason``."""

    async def close(self) -> None:
        """Let go of it."""


class Watched:
    """A replica with its health, and when a request on it last moved.

    ``told`` is what :meth:`watch` has last said of it: whether it takes work.
    """

    def __init__(self, replica: Replica, capacity: Capacity, policy: HealthPolicy) -> None:
        self.replica = replica
        self.capacity = capacity
        self.health = Health(policy)
        self.told = False
        self.running: set[str] = set()
        self.moved = 0.0
        self._policy = policy
        self._sized = False
        self._steps: float | None = None
        self._trouble = ""

    async def watch(
        self,
        clock: Callable[[], float],
        changed: Callable[[Watched, str | None], None],
        lost: Callable[[Watched, str], None],
        observed: Callable[[Watched, Load], None],
    ) -> None:
        """Probe for ever, whatever happens: without it, the replica would stay as it is.

        Args:
            clock: Seconds, monotonic.
            changed: Told when it comes in (no reason) or goes out.
            lost: Told that what runs there will not come to an end by itself, and why.
            observed: Told its load.
        """
        while True:
            try:
                await self._look(clock, changed, lost, observed)
            except Exception as error:
                self._unexpected(error)
            await asyncio.sleep(self._policy.probe_interval)

    async def _look(
        self,
        clock: Callable[[], float],
        changed: Callable[[Watched, str | None], None],
        lost: Callable[[Watched, str], None],
        observed: Callable[[Watched, Load], None],
    ) -> None:
        answered = await self._answers() or self._moves(clock())
        why = self.health.probed(answered, clock())
        silent, stuck = self.health.silent, self._stuck(clock())
        if self.health.up and stuck:
            why = self.health.stalled(clock())
        if self.health.up != self.told or why is not None:
            changed(self, None if self.health.up else why or "it is out")
        if self.running and not self.health.up and (silent or stuck):
            lost(self, "it does not answer" if silent else "its requests do not move")
        if self.health.up:
            await self._learn(changed)
            load = await self.replica.load(self._policy.probe_timeout)
            if load is not None:
                self._note(load, clock())
                observed(self, load)

    def _moves(self, now: float) -> bool:
        """Whether answers come: a probe that a busy server is late with then says nothing."""
        return self.health.up and bool(self.running) and now - self.moved < _MOVING

    async def _learn(self, changed: Callable[[Watched, str | None], None]) -> None:
        """Ask again who has not told yet what it holds: some know after their first step only."""
        if self._sized or self.running:
            return
        told = await self.replica.capacity(self._policy.probe_timeout)
        if told is None or self.running:
            return
        self._sized = True
        if told != self.capacity:
            self.capacity = told
            changed(self, None)

    async def _answers(self) -> bool:
        timeout = self._policy.probe_timeout
        try:
            if not self.health.up:
                # A server that was away may have come back with another engine or less cache.
                await self.replica.open(timeout)
                told = await self.replica.capacity(timeout)
                self.capacity, self._sized = told or self.capacity, told is not None
            return await self.replica.ready(timeout)
        except ReplicaFailure:
            return False
        except Exception as error:
            self._unexpected(error)
            return False

    def _note(self, load: Load, now: float) -> None:
        """A long prompt gives no text for long, but the engine steps through it."""
        if load.iterations is not None and load.iterations != self._steps:
            self._steps, self.moved = load.iterations, now

    def _stuck(self, now: float) -> bool:
        return bool(self.running) and now - self.moved > self._policy.stall_timeout

    def _unexpected(self, error: Exception) -> None:
        """Log a defect: once, not at every probe."""
        trouble = repr(error)
        if trouble != self._trouble:
            _LOG.error("watching %s failed", self.replica.address, exc_info=error)
        self._trouble = trouble
