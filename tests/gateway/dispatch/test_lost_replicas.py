"""Replicas that go, come back, change, or look as if they were lost, and who was on them."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.gateway.dispatch.stand_in_replica import StandIn, work
from tests.gateway.dispatch.test_dispatcher import QUICK, House, house, in_loop
from toolkit.gateway.dispatch import Dispatcher, HealthPolicy
from toolkit.gateway.scheduling import Scheduler
from toolkit.gateway.telemetry.observer import Observer
from toolkit.gateway.triton.capacity import Capacity
from toolkit.gateway.triton.failure import ReplicaFailure
from toolkit.gateway.work import Final, GatewayError, Work
from toolkit.serving.metrics import Load
from toolkit.spec.gateway import Scheduling


@in_loop
async def test_an_unexpected_error_does_not_end_the_watch() -> None:
    async with house() as home:
        replica = home.replicas[0]
        replica.alive = False
        await home.until(lambda: not home.dispatcher.ready)
        replica.trouble = [ValueError("metrics of another kind"), KeyError("max")]
        replica.alive = True
        await home.until(lambda: home.dispatcher.ready)
        assert await home.text(work("a")) == "0 1 2"


@in_loop
async def test_requests_that_fail_take_nobody_elses_answer_along() -> None:
    async with house(slots=8) as home:
        replica = home.replicas[0]
        replica.cause = ReplicaFailure("server", "the engine failed")
        replica.poison = frozenset({"p0", "p1", "p2"})
        replica.step.clear()
        healthy = [asyncio.create_task(home.text(work(str(each)))) for each in range(3)]
        await home.until(lambda: home.running() == 3)
        for each in sorted(replica.poison):
            with pytest.raises(GatewayError):
                await home.text(work(each))
        assert "r0 out" in home.diary.lines
        await asyncio.sleep(0.05)
        replica.step.set()
        assert await asyncio.gather(*healthy) == ["0 1 2"] * 3
        await home.until(lambda: home.dispatcher.ready)
        assert home.running() == 0


@in_loop
async def test_what_runs_on_a_replica_that_is_out_ends_when_it_answers_no_more() -> None:
    policy = HealthPolicy(probe_interval=0.01, first_pause=60)
    async with house(slots=8, health=policy) as home:
        replica = home.replicas[0]
        replica.cause = ReplicaFailure("server", "the engine failed")
        replica.poison = frozenset({"p0", "p1", "p2"})
        replica.step.clear()
        running = asyncio.create_task(home.text(work("a")))
        await home.until(lambda: home.running() == 1)
        for each in sorted(replica.poison):
            with pytest.raises(GatewayError):
                await home.text(work(each))
        replica.alive = False
        with pytest.raises(GatewayError) as caught:
            await running
        assert caught.value.status == 503


@in_loop
async def test_an_engine_that_steps_is_not_stuck() -> None:
    """A long prompt gives no text for a long time, and the engine works on it all the same."""
    policy = HealthPolicy(probe_interval=0.01, stall_timeout=0.1)
    async with house(health=policy) as home:
        replica = home.replicas[0]
        replica.step.clear()
        running = asyncio.create_task(home.text(work("a")))
        for step in range(40):
            replica.told = Load(1, 0, None, step)
            await asyncio.sleep(0.01)
        assert "r0 out" not in home.diary.lines
        await home.until(lambda: "r0 out" in home.diary.lines)  # it steps no more
        with pytest.raises(GatewayError):
            await running


@in_loop
async def test_nothing_begins_on_a_replica_that_has_just_gone_out() -> None:
    scheduling = Scheduling(prefix_affinity=False, starvation_after=0.1)
    policy = HealthPolicy(probe_interval=0.01, first_pause=60)
    async with house(slots=1, health=policy, scheduling=scheduling) as home:
        replica, watched = home.replicas[0], home.dispatcher._replicas["r0"]
        frozen = asyncio.Event()

        def freeze() -> None:
            frozen.set()
            home.dispatcher._changed(watched, watched.health.stalled(time.monotonic()))

        class Freezing(Observer):
            def finished(self, work: Work, replica: str, final: Final, e2e_s: float) -> None:
                # The next one is assigned right after this, and begins in the turn after that.
                asyncio.get_running_loop().call_soon(freeze)

        replica.step.clear()
        tasks = [asyncio.create_task(home.text(work(str(each)))) for each in range(8)]
        await home.until(lambda: len(home.diary.lines) == 9)
        begun = list(replica.asked)
        assert 1 <= len(begun) < 8
        home.dispatcher._observer = Freezing()
        replica.step.set()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert frozen.is_set()
        assert replica.asked == begun
        assert [each for each in ends if each == "0 1 2"] == ["0 1 2"] * len(begun)
        assert all(isinstance(each, GatewayError) for each in ends if each != "0 1 2")


@in_loop
async def test_a_defect_is_counted_as_a_failure_and_not_as_a_client_that_left() -> None:
    async with house() as home:
        home.replicas[0].poison = frozenset({"a"})
        home.replicas[0].cause = ValueError("a defect")  # type: ignore[assignment]
        with pytest.raises(ValueError, match="a defect"):
            await home.text(work("a"))
        assert home.diary.lines[-1] == "failed a 500"
        assert home.running() == 0


@in_loop
async def test_a_replica_that_was_never_there_is_shown_as_down() -> None:
    dispatcher = Dispatcher(Scheduler.of(Scheduling()), health=QUICK)
    lost = StandIn("lost:8001")
    lost.alive = False
    dispatcher.add(lost, Capacity(4, 1000))
    await dispatcher.start()
    try:
        (shown,) = dispatcher.snapshot().replicas
        assert (shown.id, shown.model, shown.up, shown.room) == ("lost:8001", "chat", False, 0)
    finally:
        await dispatcher.close()


@in_loop
async def test_what_a_replica_tells_late_counts_once_nothing_runs_there() -> None:
    """NVIDIA's C++ backend knows its size after its first step only."""
    async with house(slots=4) as home:
        replica = home.replicas[0]
        replica.step.clear()
        running = asyncio.create_task(home.text(work("a")))
        await home.until(lambda: home.running() == 1)
        replica.held = Capacity(2, 5_000)
        await asyncio.sleep(0.05)
        assert home.running() == 1
        replica.step.set()
        await running
        await home.until(lambda: home.dispatcher.snapshot().replicas[0].slots == 2)
        assert home.dispatcher.snapshot().replicas[0].kv_tokens == 5_000
        assert "r0 out" not in home.diary.lines


async def tried_by_one_and_waiting_for_the_other(home: House) -> asyncio.Task[str]:
    """``x`` failed on r1, which is well, and waits for r0, which is full."""
    full, other = home.replicas
    full.step.clear()
    other.step.clear()
    other.alive, other.held = False, Capacity(8, 10_000)
    other.poison, other.cause = frozenset({"x"}), ReplicaFailure("server", "it failed")
    await home.until(lambda: "r1 out" in home.diary.lines)
    rest = [asyncio.create_task(home.text(work(str(each)))) for each in range(4)]
    await home.until(lambda: len(full.asked) > 0)
    other.alive = True
    await home.until(lambda: home.diary.lines[-1] == "r1 up" and home.running() == 4)
    task = asyncio.create_task(home.text(work("x")))
    await home.until(lambda: "retried x r1" in home.diary.lines)
    assert "x" not in full.asked
    home.rest = rest
    return task


@in_loop
async def test_nobody_waits_for_a_replica_that_is_gone_while_those_that_are_there_failed_it() -> (
    None
):
    async with house(replicas=2, slots=1) as home:
        task = await tried_by_one_and_waiting_for_the_other(home)
        home.replicas[0].alive = False
        with pytest.raises(GatewayError) as caught:
            await asyncio.wait_for(task, 10)
        assert caught.value.status == 503
        home.replicas[1].step.set()
        assert await asyncio.gather(*home.rest) == ["0 1 2"] * 4


@in_loop
async def test_a_replica_that_has_come_back_is_tried_again() -> None:
    async with house(replicas=2, slots=1) as home:
        task = await tried_by_one_and_waiting_for_the_other(home)
        home.replicas[1].alive, home.replicas[1].poison = False, frozenset()
        await home.until(lambda: home.diary.lines.count("r1 out") == 2)
        home.replicas[1].alive = True
        home.replicas[1].step.set()
        assert await asyncio.wait_for(task, 10) == "0 1 2"
        home.replicas[0].step.set()
        await asyncio.gather(*home.rest)
