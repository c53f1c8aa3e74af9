"""What the dispatcher needs of a replica, and the watch over each one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from toolkit.gateway.dispatch.health import Health, HealthPolicy
from toolkit.gateway.triton.capacity import Capacity
from toolkit.gateway.triton.failure import ReplicaFailure
from toolkit.gateway.work import Piece, Work
from toolkit.serving.metrics import Load


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
    """A replica with its health, and when a request on it last moved."""

    def __init__(self, replica: Replica, capacity: Capacity, policy: HealthPolicy) -> None:
        self.replica = replica
        self.capacity = capacity
        self.health = Health(policy)
        self.running: set[str] = set()
        self.moved = 0.0
        self._policy = policy
        self._open = False

    async def watch(
        self,
        clock: Callable[[], float],
        changed: Callable[[Watched, str | None], None],
        observed: Callable[[Watched, Load], None],
    ) -> None:
        """Probe for ever; tells when it comes in (no reason) or goes out, and its load."""
        while True:
            was_up = self.health.up
            why = self.health.probed(await self._answers(), clock())
            if self._stalls(clock()):
                why = self.health.stalled(clock())
            if why is not None or self.health.up != was_up:
                changed(self, why)
            if self.health.up:
                load = await self.replica.load(self._policy.probe_timeout)
                if load is not None:
                    observed(self, load)
            await asyncio.sleep(self._policy.probe_interval)

    async def _answers(self) -> bool:
        timeout = self._policy.probe_timeout
        try:
            if not self.health.up:
                # A server that was away may have come back with another engine or less cache.
                await self.replica.open(timeout)
                self.capacity = await self.replica.capacity(timeout) or self.capacity
            return await self.replica.ready(timeout)
        except ReplicaFailure:
            return False

    def _stalls(self, now: float) -> bool:
        return (
            self.health.up and bool(self.running) and now - self.moved > self._policy.stall_timeout
        )
