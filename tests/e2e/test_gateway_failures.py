"""The gateway over two real Tritons: one dies under load, clients vanish, nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from toolkit.pipeline import BuildResult
    from toolkit.serving.deploy import RunningServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TOKENS = 96
EARLY = 8
AT_ONCE = 48


@dataclass
class House:
    """A gateway and the two servers behind it."""

    url: str
    servers: list[RunningServer]

    def gauge(self, name: str, **labels: str) -> float:
        """Sum over the samples of one of the gateway's families."""
        from toolkit.serving.metrics import parse

        found = parse(httpx.get(f"{self.url}/metrics", timeout=30).text)
        return found.value(f"toolkit_gateway_{name}", **labels) or 0.0

    def replicas(self) -> set[str]:
        """The names that the gateway gives its replicas."""
        from toolkit.serving.metrics import parse

        found = parse(httpx.get(f"{self.url}/metrics", timeout=30).text)
        family = "toolkit_gateway_replica_up"
        return {one.label("replica") or "" for one in found.samples if one.family == family}

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def house(plain_build: BuildResult, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    from toolkit.gateway.plan import join, plan_model
    from toolkit.pipeline.beside import tokenizer_of
    from toolkit.progress import Silent
    from toolkit.serving.companion import Companion, CompanionPlan
    from toolkit.serving.deploy import prepare, start

    deployment, repository = plain_build.deployment, plain_build.repository
    plan = prepare(deployment, repository, runtime=plain_build.runtime, progress=Silent())
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                start(plan, tmp_path_factory.mktemp(f"state{n}"), progress=Silent(), tied=True)
            )
            for n in range(2)
        ]
        first, second = (server.endpoints for server in servers)
        other = f"{second.grpc_url}/{second.metrics}"
        model = plan_model(deployment, tokenizer_of(repository), [other])
        path = tmp_path_factory.mktemp("gateway") / "gateway.json"
        path.write_text(join([model], deployment.gateway).model_dump_json())
        command = (sys.executable, "-m", "toolkit.gateway", str(path))
        beside = CompanionPlan(
            name="gateway", command=command, host="127.0.0.1", port=0, field="gateway.port"
        )
        companion = Companion(beside, lambda data: None, lambda text: None)
        companion.start(first)
        stack.callback(companion.stop)
        built = House(companion.url, servers)
        built.until(lambda: built.gauge("replica_up") == 2)
        yield built


@dataclass
class Seen:
    """One streamed answer as its client saw it."""

    text: str = ""
    error: str = ""
    complete: bool = False


async def stream(
    client: httpx.AsyncClient, url: str, number: int, seen: Seen, tokens: int = TOKENS
) -> None:
    body = {
        "model": "plain",
        "prompt": f"Tell me {number} long stories about the sea:",
        "max_tokens": tokens,
        "min_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            seen.error = (await answer.aread()).decode()
            return
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                seen.complete = not seen.error
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                seen.error = seen.error or str(event.get("error", ""))
                seen.text += "".join(each["text"] for each in event.get("choices", ()))


def test_what_had_no_token_completes_elsewhere_when_a_replica_dies(house: House) -> None:
    pid = house.servers[0].state().server_pid or 0
    port = house.servers[0].endpoints.grpc_url.rpartition(":")[2]
    [replica] = [name for name in house.replicas() if port in name]

    def held() -> float:
        return house.gauge("running", replica=replica)

    async def run() -> list[Seen]:
        seen = [Seen() for _ in range(AT_ONCE)]
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=180, limits=limits) as client:

            def begin(numbers: range, tokens: int = TOKENS) -> list[asyncio.Task[None]]:
                return [
                    asyncio.ensure_future(stream(client, house.url, number, seen[number], tokens))
                    for number in numbers
                ]

            early = begin(range(EARLY), 4 * TOKENS)  # none ends before the last has begun
            while not all(one.text for one in seen[:EARLY]):
                await asyncio.sleep(0.01)
            # A stopped server takes requests and gives no token: those that it holds from now
            # on have had none when it dies, however fast or slow the machine is.
            os.kill(pid, signal.SIGSTOP)
            begun = held()
            late = begin(range(EARLY, AT_ONCE))
            deadline = time.monotonic() + 120
            while held() <= begun:
                assert time.monotonic() < deadline, "the stopped server was given nothing"
                await asyncio.sleep(0.05)
            os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*early, *late)
        return seen

    seen = asyncio.run(run())
    for one in seen:
        assert one.complete != bool(one.error), one
    assert all(one.complete for one in seen[EARLY:])
    broken = [one for one in seen if one.error]
    assert 0 < len(broken) < EARLY
    assert all(one.text and "replica" in one.error for one in broken)
    assert house.gauge("retries_total") > 0
    house.until(lambda: house.gauge("replica_up") == 2)
    assert house.gauge("running") == 0


def test_500_clients_that_vanish_leave_no_slot_occupied(house: House) -> None:
    async def vanish(client: httpx.AsyncClient, number: int) -> None:
        seen = Seen()
        task = asyncio.ensure_future(stream(client, house.url, number, seen))
        while not seen.text and not task.done():
            await asyncio.sleep(0.02)
            if number % 5 == 0:
                break  # before its first token: it still waits, or its prompt is read
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def run() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=300, limits=limits) as client:
            await asyncio.gather(*(vanish(client, number) for number in range(500)))

    asyncio.run(run())
    house.until(lambda: house.gauge("running") + house.gauge("queued") == 0)
    for server in house.servers:
        from toolkit.serving.metrics import REQUESTS, parse

        def idle(url: str = server.metrics_url) -> bool:
            found = parse(httpx.get(url, timeout=30).text)
            return found.value(REQUESTS, request_type="active") == 0

        house.until(idle)

    async def after() -> Seen:
        seen = Seen()
        async with httpx.AsyncClient(timeout=60) as client:
            await stream(client, house.url, 1, seen)
        return seen

    assert asyncio.run(after()).complete
