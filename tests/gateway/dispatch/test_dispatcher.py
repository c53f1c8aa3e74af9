"""Requests on their way: waiting, answers, failures, clients that leave, the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from tests.gateway.dispatch.stand_in_replica import StandIn, work
from toolkit.gateway.dispatch import Dispatcher, HealthPolicy
from toolkit.gateway.scheduling import Scheduler
from toolkit.gateway.telemetry.observer import Observer
from toolkit.gateway.triton.capacity import Capacity
from toolkit.gateway.triton.failure import ReplicaFailure
from toolkit.gateway.work import Final, GatewayError, Piece, Work
from toolkit.spec.gateway import RequestClass, Scheduling

QUICK = HealthPolicy(probe_interval=0.01, first_pause=0.02)


class Diary(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def queued(self, work: Work) -> None:
        self.lines.append(f"queued {work.id}")

    def refused(self, work: Work, reason: str) -> None:
        self.lines.append(f"refused {work.id} {reason}")

    def finished(self, work: Work, replica: str, final: Final, e2e_s: float) -> None:
        self.lines.append(f"finished {work.id} {replica}")

    def failed(self, work: Work, error: GatewayError) -> None:
        self.lines.append(f"failed {work.id} {error.status}")

    def withdrawn(self, work: Work) -> None:
        self.lines.append(f"withdrawn {work.id}")

    def retried(self, work: Work, replica: str) -> None:
        self.lines.append(f"retried {work.id} {replica}")

    def replica_changed(self, replica: str, model: str, up: bool, why: str) -> None:
        self.lines.append(f"{replica} {'up' if up else 'out'}")


class House:
    """A dispatcher over stand-ins."""

    def __init__(self, dispatcher: Dispatcher, replicas: list[StandIn], diary: Diary) -> None:
        self.dispatcher, self.replicas, self.diary = dispatcher, replicas, diary
        self.rest: list[asyncio.Task[str]] = []

    async def text(self, wanted: Work) -> str:
        return "".join([piece.text async for piece in self.dispatcher.generate(wanted)])

    def running(self) -> int:
        return sum(sum(each.running.values()) for each in self.dispatcher.snapshot().replicas)

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"never came; {self.diary.lines}")


@asynccontextmanager
async def house(
    replicas: int = 1,
    slots: int = 2,
    health: HealthPolicy = QUICK,
    scheduling: Scheduling | None = None,
) -> AsyncIterator[House]:
    diary = Diary()
    dispatcher = Dispatcher(
        Scheduler.of(scheduling or Scheduling(prefix_affinity=False)),
        observer=diary,
        health=health,
    )
    stand_ins = [StandIn(f"r{number}") for number in range(replicas)]
    for each in stand_ins:
        dispatcher.add(each, Capacity(slots, 10_000))
    await dispatcher.start()
    built = House(dispatcher, stand_ins, diary)
    await built.until(lambda: dispatcher.ready)
    try:
        yield built
    finally:
        await dispatcher.close()


def in_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run an async test."""

    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 30))  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


@in_loop
async def test_an_answer_comes_in_pieces_and_leaves_nothing() -> None:
    async with house() as home:
        assert await home.text(work("a")) == "0 1 2"
        assert home.running() == 0
        assert "finished a r0" in home.diary.lines


@in_loop
async def test_what_has_no_slot_waits_and_is_served() -> None:
    async with house(slots=1) as home:
        home.replicas[0].step.clear()
        tasks = [asyncio.create_task(home.text(work(str(each)))) for each in range(8)]
        await home.until(lambda: len(home.diary.lines) >= 9)
        assert len(home.replicas[0].asked) < 8
        home.replicas[0].step.set()
        assert await asyncio.gather(*tasks) == ["0 1 2"] * 8


@in_loop
async def test_a_client_that_leaves_frees_its_place() -> None:
    async with house(slots=1) as home:
        home.replicas[0].step.clear()
        tasks = [asyncio.create_task(home.text(work(str(each)))) for each in range(6)]
        await home.until(lambda: home.running() >= 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert home.running() == 0
        assert sum(home.dispatcher.snapshot().models[0].queued.values()) == 0
        home.replicas[0].step.set()
        assert await home.text(work("next")) == "0 1 2"
        assert sum(line.startswith("withdrawn") for line in home.diary.lines) == 6


@in_loop
async def test_closing_the_generator_in_the_middle_cancels_it() -> None:
    async with house() as home:
        async with aclosing(home.dispatcher.generate(work("a", tokens=50))) as pieces:
            async for _ in pieces:
                break
        assert home.replicas[0].closed == ["a"]
        assert home.running() == 0


@in_loop
async def test_what_fails_before_a_token_completes_elsewhere() -> None:
    async with house(replicas=2) as home:
        home.replicas[0].fail_at = 0
        texts = await asyncio.gather(*(home.text(work(str(each))) for each in range(6)))
        assert texts == ["0 1 2"] * 6
        assert any(line.startswith("retried") for line in home.diary.lines)
        assert "r0 out" in home.diary.lines


@in_loop
async def test_what_fails_after_a_token_ends_with_an_error() -> None:
    async with house(replicas=2) as home:
        for each in home.replicas:
            each.fail_at = 1
        pieces = home.dispatcher.generate(work("a"))
        assert (await anext(pieces)).text == "0 "
        with pytest.raises(GatewayError) as caught:
            await anext(pieces)
        assert (caught.value.status, caught.value.code) == (502, "replica_failed")
        assert home.running() == 0


@in_loop
async def test_a_replica_that_broke_comes_back() -> None:
    async with house(replicas=2) as home:
        home.replicas[0].alive = False
        home.replicas[0].fail_at = 0
        await asyncio.gather(*(home.text(work(str(each))) for each in range(4)))
        await home.until(lambda: "r0 out" in home.diary.lines)
        home.replicas[0].asked.clear()
        await asyncio.gather(*(home.text(work(f"b{each}")) for each in range(4)))
        assert home.replicas[0].asked == []
        home.replicas[0].alive, home.replicas[0].fail_at = True, None
        await home.until(lambda: home.diary.lines[-1] == "r0 up")
        await asyncio.gather(*(home.text(work(f"c{each}")) for each in range(4)))
        assert home.replicas[0].asked


@in_loop
async def test_a_replica_that_comes_back_smaller_gets_less() -> None:
    async with house(slots=4) as home:
        replica = home.replicas[0]
        assert home.dispatcher.snapshot().replicas[0].slots == 4
        replica.alive, replica.held = False, Capacity(2, 5_000)
        await home.until(lambda: not home.dispatcher.ready)
        replica.alive = True
        await home.until(lambda: home.dispatcher.ready)
        found = home.dispatcher.snapshot().replicas[0]
        assert (found.slots, found.kv_tokens) == (2, 5_000)


@in_loop
async def test_requests_on_a_replica_that_stops_answering_end() -> None:
    async with house(replicas=2, slots=4) as home:
        for each in home.replicas:
            each.step.clear()
        tasks = [asyncio.create_task(home.text(work(str(each)))) for each in range(4)]
        await home.until(lambda: home.running() == 4)
        home.replicas[0].alive = False  # its connection stays open, and nothing moves
        home.replicas[1].step.set()
        assert await asyncio.gather(*tasks) == ["0 1 2"] * 4
        assert home.running() == 0


@in_loop
async def test_a_replica_without_movement_is_taken_out() -> None:
    policy = HealthPolicy(probe_interval=0.01, first_pause=5, stall_timeout=0.05)
    async with house(replicas=2, slots=4, health=policy) as home:
        home.replicas[0].step.clear()
        texts = await asyncio.gather(*(home.text(work(str(each))) for each in range(4)))
        assert texts == ["0 1 2"] * 4
        assert "r0 out" in home.diary.lines


@in_loop
async def test_a_busy_replica_stays_in() -> None:
    async with house(replicas=2) as home:
        home.replicas[0].fail_at = 0
        home.replicas[0].cause = ReplicaFailure("busy", "queue is full")
        texts = await asyncio.gather(*(home.text(work(str(each))) for each in range(4)))
        assert texts == ["0 1 2"] * 4
        assert "r0 out" not in home.diary.lines


@in_loop
async def test_the_clients_own_mistake_is_not_tried_twice() -> None:
    async with house(replicas=2) as home:
        for each in home.replicas:
            each.fail_at = 0
            each.cause = GatewayError(400, "top_p: too large", param="top_p")  # type: ignore[assignment]
        with pytest.raises(GatewayError, match="top_p"):
            await home.text(work("a"))
        assert len(home.replicas[0].asked) + len(home.replicas[1].asked) == 1


@in_loop
async def test_with_no_replica_left_the_client_is_told() -> None:
    async with house() as home:
        home.replicas[0].alive = False
        home.replicas[0].fail_at = 0
        with pytest.raises(GatewayError) as caught:
            await home.text(work("a"))
        assert caught.value.status == 503
        with pytest.raises(GatewayError) as caught:
            await home.text(work("b"))
        assert caught.value.status == 503
        assert caught.value.retry_after_s
        assert not home.dispatcher.ready


@in_loop
async def test_a_wait_past_the_limit_of_its_class_ends() -> None:
    scheduling = Scheduling(
        classes={"interactive": RequestClass(), "batch": RequestClass(max_wait=0.05)}
    )
    async with house(slots=1, scheduling=scheduling) as home:
        home.replicas[0].step.clear()
        first = [asyncio.create_task(home.text(work(f"i{each}"))) for each in range(4)]
        await home.until(lambda: home.running() >= 1)
        with pytest.raises(GatewayError) as caught:
            await home.text(work("late", request_class="batch"))
        assert caught.value.status in (429, 504)
        assert caught.value.retry_after_s
        home.replicas[0].step.set()
        assert await asyncio.gather(*first) == ["0 1 2"] * 4


@in_loop
async def test_a_deadline_ends_what_the_engine_does_not_end_itself() -> None:
    async with house() as home:
        home.replicas[0].step.clear()
        with pytest.raises(GatewayError) as caught:
            await home.text(work("a", deadline_s=0.05))
        assert caught.value.status == 504
        assert home.replicas[0].closed == ["a"]
        assert home.running() == 0


@in_loop
async def test_draining_lets_end_what_runs_and_takes_nothing_more() -> None:
    async with house() as home:
        home.replicas[0].step.clear()
        running = asyncio.create_task(home.text(work("a")))
        await home.until(lambda: home.running() == 1)
        drain = asyncio.create_task(home.dispatcher.drain(5))
        await asyncio.sleep(0)
        with pytest.raises(GatewayError) as caught:
            await home.text(work("b"))
        assert caught.value.status == 503
        home.replicas[0].step.set()
        assert await running == "0 1 2"
        await drain


@in_loop
async def test_draining_past_its_time_ends_what_is_left() -> None:
    async with house() as home:
        home.replicas[0].step.clear()
        running = asyncio.create_task(home.text(work("a")))
        await home.until(lambda: home.running() == 1)
        await home.dispatcher.drain(0.05)
        with pytest.raises(GatewayError, match="shutting down"):
            await running
        assert home.running() == 0


@in_loop
async def test_a_thousand_clients_that_vanish_leave_nothing() -> None:
    async with house(replicas=2, slots=16) as home:
        generators: list[AsyncGenerator[Piece, None]] = []

        async def vanish(number: int) -> None:
            pieces = home.dispatcher.generate(work(str(number), tokens=20))
            generators.append(pieces)
            async with aclosing(pieces):
                async for _ in pieces:
                    if number % 3:
                        return
                    await asyncio.sleep(0.001)

        await asyncio.gather(*(vanish(number) for number in range(1000)))
        assert home.running() == 0
        assert home.replicas[0].running == home.replicas[1].running == set()
        assert await home.text(work("after")) == "0 1 2"
