"""A replica that is slow to be asked how it is, or has no place, is well."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.gateway.dispatch.stand_in_replica import work
from tests.gateway.dispatch.test_dispatcher import house, in_loop
from toolkit.gateway.triton.failure import ReplicaFailure
from toolkit.gateway.work import GatewayError
from toolkit.spec.gateway import Scheduling


@in_loop
async def test_answers_that_come_outweigh_probes_that_do_not() -> None:
    async with house() as home:
        replica = home.replicas[0]
        replica.step.clear()
        running = asyncio.create_task(home.text(work("a", tokens=40)))
        await home.until(lambda: home.running() == 1)
        replica.alive = False  # to a probe
        for _ in range(30):
            replica.step.set()
            await asyncio.sleep(0)
            replica.step.clear()
            await asyncio.sleep(0.01)
        assert "r0 out" not in home.diary.lines
        replica.step.set()
        assert len((await running).split()) == 40
        await home.until(lambda: "r0 out" in home.diary.lines)


BUSY = ReplicaFailure("busy", "the queue is full")


@in_loop
async def test_what_finds_the_only_replica_without_place_waits_for_one() -> None:
    async with house() as home:
        replica = home.replicas[0]
        replica.cause, replica.poison = BUSY, frozenset({"a"})  # others fill its queue
        waiting = asyncio.create_task(home.text(work("a")))
        await home.until(lambda: len(replica.asked) >= 5)  # more often than a failure is tried
        assert not waiting.done()
        assert home.dispatcher.ready
        replica.poison = frozenset()
        assert await waiting == "0 1 2"
        assert home.running() == 0


@in_loop
async def test_a_replica_without_place_is_not_asked_without_a_pause() -> None:
    async with house() as home:
        replica = home.replicas[0]
        replica.cause, replica.poison = BUSY, frozenset("abcdefgh")
        tasks = [asyncio.create_task(home.text(work(name))) for name in "abcdefgh"]
        begin = time.monotonic()
        await home.until(lambda: len(replica.asked) >= 6)
        # Its slots, at the beginning and after each pause.
        assert len(replica.asked) <= 2 * (2 + (time.monotonic() - begin) / 0.1)
        replica.poison = frozenset()
        await asyncio.gather(*tasks)


@in_loop
async def test_another_replica_is_asked_at_once() -> None:
    async with house(replicas=2) as home:
        full, free = home.replicas
        full.cause, full.poison = BUSY, frozenset("abcd")
        texts = await asyncio.gather(*(home.text(work(name)) for name in "abcd"))
        assert texts == ["0 1 2"] * 4
        assert set(free.asked) == set("abcd")


@in_loop
async def test_who_never_finds_a_place_is_told_in_the_end() -> None:
    scheduling = Scheduling(prefix_affinity=False, starvation_after=0.5)
    async with house(scheduling=scheduling) as home:
        home.replicas[0].cause, home.replicas[0].poison = BUSY, frozenset({"a"})
        with pytest.raises(GatewayError, match="queue is full") as told:
            await home.text(work("a"))
        assert told.value.status == 503
        assert home.running() == 0
