"""A replica that is slow to be asked how it is, but whose answers come, is well."""

from __future__ import annotations

import asyncio

from tests.gateway.dispatch.stand_in_replica import work
from tests.gateway.dispatch.test_dispatcher import house, in_loop


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
