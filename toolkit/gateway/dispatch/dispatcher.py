"""Runs work: waits for the scheduler's word, streams from the replica, tries again elsewhere.

Everything happens on one event loop, so the scheduler needs no lock. What fails before its
first piece is given to another replica; after it, the client is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from toolkit.gateway.dispatch.call import Call, no_replica, refusal, too_late
from toolkit.gateway.dispatch.health import HealthPolicy
from toolkit.gateway.dispatch.replicas import Replica, Watched
from toolkit.gateway.scheduling import (
    ReplicaLoad,
    ReplicaSpec,
    ReplicaState,
    Scheduler,
    Snapshot,
)
from toolkit.gateway.telemetry.observer import Observer
from toolkit.gateway.triton.capacity import Capacity
from toolkit.gateway.triton.failure import ReplicaFailure
from toolkit.gateway.work import Final, GatewayError, Piece, Work
from toolkit.serving.metrics import Load

_ATTEMPTS = 3
_SHORTEST = 0.02
_FULL_PAUSE = 0.1
"""Before a replica that had no place is asked again."""
_GRACE = 0.5
"""The engine ends what is past its deadline itself; only if it does not, it is cancelled."""


class Dispatcher:
    """Implements :class:`toolkit.gateway.work.Generator` over any number of replicas.

    Args:
        scheduler: Decides; nobody else may use it.
        observer: Told of each request's moments.
        health: When replicas are taken out.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        observer: Observer | None = None,
        health: HealthPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler = scheduler
        self._observer = observer or Observer()
        self._policy = health or HealthPolicy()
        self._clock = clock
        self._replicas: dict[str, Watched] = {}
        self._calls: dict[str, Call] = {}
        self._watches: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False

    def add(self, replica: Replica, capacity: Capacity) -> None:
        """Take a replica in; it gets work once it has answered a probe.

        ``capacity`` counts where it does not tell its own.
        """
        self._replicas[replica.address] = Watched(replica, capacity, self._policy)

    async def start(self) -> None:
        """Begin to watch the replicas."""
        for each in self._replicas.values():
            watch = each.watch(self._clock, self._changed, self._lost, self._observed)
            self._watches.append(asyncio.create_task(watch))

    @property
    def ready(self) -> bool:
        """Whether every model has a replica that takes work."""
        models = {each.replica.model for each in self._replicas.values()}
        up = {each.replica.model for each in self._replicas.values() if each.health.up}
        return not self._draining and models == up

    def snapshot(self) -> Snapshot:
        """What waits and what runs where; a replica that was never there is one that is down."""
        known = self._scheduler.snapshot(self._clock())
        there = {each.id for each in known.replicas}
        absent = [
            ReplicaState(address, each.replica.model, False, each.capacity.slots, 0)
            for address, each in self._replicas.items()
            if address not in there
        ]
        return replace(known, replicas=(*known.replicas, *absent))

    async def generate(self, work: Work) -> AsyncGenerator[Piece, None]:
        """See :meth:`toolkit.gateway.work.Generator.generate`."""
        call = self._admit(work)
        try:
            while True:
                replica = await call.assigned
                self._begin(call, replica)
                try:
                    async with aclosing(self._stream(call, replica)) as pieces:
                        async for piece in pieces:
                            yield piece
                except ReplicaFailure as failure:
                    self._failed_on(call, replica, failure)
                else:
                    return
        except GatewayError as error:
            call.ended = True
            self._observer.failed(work, error)
            raise
        except Exception:
            call.ended = True
            self._observer.failed(work, defect())
            raise
        finally:
            self._leave(call)

    async def drain(self, timeout: float) -> None:
        """Take nothing more; wait ``timeout`` seconds for what runs, then end it."""
        self._draining = True
        give_up = self._clock() + timeout
        while self._calls and self._clock() < give_up:
            await asyncio.sleep(0.05)
        for call in list(self._calls.values()):
            self._end(call, shutting_down())
        for _ in range(40):
            if not self._calls:
                break
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Stop watching and let go of the replicas."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        if self._timer:
            self._timer.cancel()
        for each in self._replicas.values():
            await each.replica.close()

    def _admit(self, work: Work) -> Call:
        if self._draining:
            raise shutting_down()
        now = self._clock()
        call = Call(work, now)
        refused = self._scheduler.submit(call.ticket, now)
        if refused is not None:
            self._observer.refused(work, refused.reason)
            raise refusal(refused)
        self._calls[work.id] = call
        self._observer.queued(work)
        self._pump()
        return call

    def _begin(self, call: Call, replica: str) -> None:
        self._replicas[replica].running.add(call.work.id)
        if len(self._replicas[replica].running) == 1:
            self._replicas[replica].moved = self._clock()
        self._observer.dispatched(call.work, replica, self._clock() - call.arrived)

    async def _stream(self, call: Call, replica: str) -> AsyncGenerator[Piece, None]:
        watched = self._replicas[replica]
        if not watched.health.up:
            # Assigned in the turn before: nobody would end what begins there now.
            raise ReplicaFailure("connection", "it has just gone out")
        left = call.time_left(self._clock())
        async with aclosing(watched.replica.generate(call.work, left)) as pieces:
            async for piece in pieces:
                watched.moved = self._clock()
                self._account(call, replica, piece, watched.moved)
                yield piece

    def _account(self, call: Call, replica: str, piece: Piece, now: float) -> None:
        identity = call.work.id
        if isinstance(piece, Final):
            call.ended = True
            self._replicas[replica].running.discard(identity)
            self._replicas[replica].health.request_succeeded()
            usage = piece.usage
            self._scheduler.finish(
                identity, output_tokens=usage.completion, cached_tokens=usage.cached, now=now
            )
            if call.last_piece is None:
                self._observer.first_token(call.work, replica, now - call.arrived)
            self._observer.finished(call.work, replica, piece, now - call.arrived)
            self._pump()
            return
        if call.last_piece is None:
            self._scheduler.first_token(identity, now)
            self._observer.first_token(call.work, replica, now - call.arrived)
        else:
            self._observer.piece(call.work, now - call.last_piece)
        self._scheduler.progress(identity, call.tokens_in(piece), now)
        call.last_piece = now

    def _failed_on(self, call: Call, replica: str, failure: ReplicaFailure) -> None:
        """Queue the request again, or raise what the client is told."""
        watched = self._replicas[replica]
        watched.running.discard(call.work.id)
        now = self._clock()
        why = watched.health.request_failed(failure.cause, now)
        if why is not None:
            self._changed(watched, why)
        if call.last_piece is not None:
            raise GatewayError(
                502,
                f"the replica failed in the middle of the answer: {failure.message}",
                kind="server_error",
                code="replica_failed",
            )
        if failure.cause == "busy":
            self._turned_away(call, replica, failure, now)
            return
        call.attempts += 1
        call.tried.add(replica)
        if call.attempts >= _ATTEMPTS:
            raise no_replica(failure.message)
        self._observer.retried(call.work, replica)
        call.wait_again()
        refused = self._scheduler.requeue(call.work.id, now)
        if refused is not None:
            raise refusal(refused)
        if self._in_vain(call):
            raise no_replica(failure.message)
        self._pump()

    def _turned_away(self, call: Call, replica: str, failure: ReplicaFailure, now: float) -> None:
        """Its queue is full, by other clients' doing: wait here until it has place again.

        Not for ever: one that finds none for as long as nobody is kept waiting is told.
        """
        call.turned_away = now if call.turned_away is None else call.turned_away
        if now - call.turned_away >= self._scheduler.starvation_after:
            raise no_replica(failure.message)
        self._observer.retried(call.work, replica)
        call.wait_again()
        refused = self._scheduler.requeue(call.work.id, now, full_until=now + _FULL_PAUSE)
        if refused is not None:
            raise refusal(refused)
        self._pump()

    def _in_vain(self, call: Call) -> bool:
        """Whether every replica that is up has failed it: it would wait, in front of others, for
        one that may never come back. While none is up the scheduler has its own patience."""
        up = {address for address, each in self._replicas.items() if each.health.up}
        return bool(up) and up <= call.tried

    def _leave(self, call: Call) -> None:
        if self._calls.pop(call.work.id, None) is None:
            return
        for each in self._replicas.values():
            each.running.discard(call.work.id)
        if not call.ended:
            self._observer.withdrawn(call.work)
        self._scheduler.withdraw(call.work.id, self._clock())
        self._pump()

    def _pump(self) -> None:
        """Carry out what the scheduler decides now, and come back when it asks to."""
        now = self._clock()
        for overdue in self._scheduler.overdue(now):
            call = self._calls.get(overdue.ticket)
            if call is not None and (not overdue.running or call.past_deadline(now, _GRACE)):
                self._end(call, too_late(overdue.running))
        for assignment in self._scheduler.dispatch(now):
            self._calls[assignment.ticket].assign(assignment.replica)
        self._wake(self._scheduler.wake_at(now), now)

    def _wake(self, at: float | None, now: float) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(_SHORTEST, at - now), self._pump)

    def _end(self, call: Call, error: GatewayError) -> None:
        if not call.refuse(error) and call.replica is not None:
            self._replicas[call.replica].replica.abort(call.work.id, error)

    def _changed(self, watched: Watched, why: str | None) -> None:
        address, now = watched.replica.address, self._clock()
        self._observer.replica_changed(address, watched.replica.model, why is None, why or "")
        if why is None:
            capacity = watched.capacity
            self._scheduler.remove_replica(address, now)
            self._scheduler.add_replica(
                ReplicaSpec(address, watched.replica.model, capacity.slots, capacity.kv_tokens),
                now,
            )
            for call in self._calls.values():
                call.tried.discard(address)
        else:
            self._scheduler.eject(address, now)
            for call in self._calls.values():
                if call.tried and self._in_vain(call):
                    call.refuse(no_replica("every replica that is there has failed it"))
        watched.told = why is None
        self._pump()

    def _lost(self, watched: Watched, why: str) -> None:
        """End what runs on a replica that says nothing any more, so that it can go elsewhere.

        One that is out because requests failed may well bring the others to their end.
        """
        for identity in tuple(watched.running):
            watched.replica.abort(identity, ReplicaFailure("connection", why))

    def _observed(self, watched: Watched, load: Load) -> None:
        seen = ReplicaLoad(load.running, load.waiting, load.kv_cache_use)
        self._scheduler.observe(watched.replica.address, seen, self._clock())
        self._pump()


def defect() -> GatewayError:
    """An error of the gateway's own."""
    return GatewayError(500, "the gateway failed", kind="server_error", code="internal_error")


def shutting_down() -> GatewayError:
    """The gateway is on its way out."""
    return GatewayError(503, "the gateway is shutting down", kind="server_error", retry_after_s=5.0)
