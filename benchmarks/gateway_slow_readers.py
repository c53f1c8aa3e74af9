"""1,000 clients that read nothing of their streams: the gateway's memory, and everybody else.

    python benchmarks/gateway_slow_readers.py examples/smollm2.yaml

Needs the file deployed; starts a gateway of its own before the deployed Triton. A few users ask
without a pause, in the class ``interactive``, for so many seconds each: alone, beside 1,000 clients
of the class ``batch`` that read their answers, and beside 1,000 that read nothing of them, with the
smallest receive buffers that the kernel gives. Some of the 1,000 ask for long answers, which fill
their buffers; the others' are short, so that many get one. They have half of the slots at most, so
that it is not their answers' length that the users feel. The bound is what one such client may keep
waiting: twice ``gateway.max_buffer`` and the 16 KiB of its connection. Takes about four minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import select
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gateway_process import gateway

from toolkit.bench.endpoint import find_deployed
from toolkit.bench.openai_http import OpenAiTarget
from toolkit.bench.records import Request, clock
from toolkit.bench.vocabulary import Tokens
from toolkit.gateway.openai.protocol import WRITE_BUFFER
from toolkit.gateway.simulation import percentile
from toolkit.serving import probe, procfs
from toolkit.serving.metrics import parse
from toolkit.spec.loading import load

LONG, SHORT = 512, 16  # tokens of an answer
SMALLEST = 1  # the kernel makes it its least
FAMILIES = ("toolkit_gateway_running", "toolkit_gateway_queued")


@dataclass
class House:
    """The gateway, its process, and who asks it."""

    port: int
    pid: int
    model: str
    words: Tokens
    options: argparse.Namespace
    dice: random.Random = field(default_factory=lambda: random.Random(1))

    @property
    def resident(self) -> int:
        """Bytes of memory that the gateway's process holds."""
        return procfs.resident_bytes(self.pid)

    def prompt(self, tokens: int) -> str:
        """Other words every time."""
        return self.words.make(tokens, self.dice)

    def lengths(self) -> list[int]:
        """Tokens of the crowd's answers, the long ones first."""
        long = min(self.options.long, self.options.crowd)
        return [LONG] * long + [SHORT] * (self.options.crowd - long)

    async def at_rest(self) -> None:
        """Wait until nothing runs and nothing waits."""
        url = f"http://127.0.0.1:{self.port}/metrics"
        give_up = clock() + 120
        while clock() < give_up:
            _, body = await asyncio.to_thread(probe.get, url, 10.0)
            found = parse(body.decode())
            if body and not any(found.value(name) for name in FAMILIES):
                return
            await asyncio.sleep(0.2)
        raise SystemExit("what was left by those who went still runs")


@dataclass(frozen=True)
class Seen:
    """One phase: tokens a second and seconds of the few, bytes of the gateway."""

    name: str
    tokens_per_s: float
    ttft_p95: float
    before: int
    peak: int
    let_go: int = 0


async def few(house: House, until: float) -> tuple[float, float]:
    """Tokens a second of the few users and the p95 of their times to the first token."""
    target = OpenAiTarget("127.0.0.1", house.port, house.model, timeout=600)
    await target.open()
    begin, ttfts, tokens = clock(), [], 0.0

    async def ask(user: int) -> None:
        nonlocal tokens
        while clock() < until:
            request = Request(user, house.prompt(48), 32, clock(), 32, request_class="interactive")
            record = await target.generate(request)
            assert record.ok, record.failure
            ttfts.append(record.responses[0] - record.sent)
            share = record.output_tokens / len(record.responses)
            tokens += share * sum(when < until for when in record.responses)

    await asyncio.gather(*(ask(user) for user in range(house.options.users)))
    await target.close()
    return tokens / (until - begin), percentile(ttfts, 0.95)


@asynccontextmanager
async def readers(house: House) -> AsyncIterator[Callable[[], int]]:
    """Clients that read whatever comes; none is let go."""
    target = OpenAiTarget("127.0.0.1", house.port, house.model, timeout=3600)
    await target.open()
    tasks = [
        asyncio.ensure_future(
            target.generate(
                Request(n, house.prompt(32), length, clock(), length, request_class="batch")
            )
        )
        for n, length in enumerate(house.lengths())
    ]
    yield lambda: 0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await target.close()


@asynccontextmanager
async def non_readers(house: House) -> AsyncIterator[Callable[[], int]]:
    """Clients that send a request and read nothing; yields how many the gateway has let go."""
    connections = []
    for length in house.lengths():
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALLEST)
        one.connect(("127.0.0.1", house.port))
        one.sendall(_request(house, length))
        connections.append(one)
        await asyncio.sleep(0)

    def let_go() -> int:
        poll = select.poll()
        for one in connections:
            poll.register(one, select.POLLERR | select.POLLHUP)
        return len(poll.poll(0))

    yield let_go
    for one in connections:
        with suppress(OSError):
            one.close()


def _request(house: House, length: int) -> bytes:
    body = {"model": house.model, "prompt": house.prompt(32), "stream": True}
    text = json.dumps({**body, "max_tokens": length, "min_tokens": length}).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-request-class: batch\r\n"
        f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


@asynccontextmanager
async def nobody(house: House) -> AsyncIterator[Callable[[], int]]:
    """For the few alone."""
    yield lambda: 0


def say(what: str) -> None:
    """Progress."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


async def phase(name: str, house: House, crowd: object) -> Seen:
    """The few beside a crowd, and the gateway's memory meanwhile."""
    assert callable(crowd)
    say(name)
    before = peak = house.resident

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, house.resident)
            await asyncio.sleep(0.2)

    watching = asyncio.ensure_future(watch())
    async with crowd(house) as let_go:
        say("the crowd is there")
        rate, ttft = await few(house, clock() + house.options.seconds)
        gone = let_go()
        say("the users are done")
    say("the crowd has left")
    await house.at_rest()
    watching.cancel()
    return Seen(name, rate, ttft, before, peak, gone)


def report(found: list[Seen], options: argparse.Namespace, buffer: int) -> str:
    """Markdown."""
    rows = [
        f"| {one.name} | {one.tokens_per_s:.0f} | {1000 * one.ttft_p95:.0f} "
        f"| {one.before / 2**20:.0f} | {one.peak / 2**20:.0f} | {one.let_go} |"
        for one in found
    ]
    reading, ignoring = (
        statistics.fmean(one.tokens_per_s for one in found if one.name == name)
        for name in (READING, IGNORING)
    )
    peak = max(one.peak for one in found if one.name == IGNORING)
    grown = (peak - found[0].before) / 1024
    bound = (2 * buffer + WRITE_BUFFER) / 1024
    return "\n".join(
        [
            f"| {options.users} users | tokens/s | p95 TTFT ms | MiB before | at most | let go |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            f"Beside {options.crowd} that read nothing the gateway grew by {grown / 1024:.0f} MiB, "
            f"{grown / options.crowd:.0f} KiB each; the bound is {bound:.0f} KiB each.",
            f"The users' tokens/s beside them: {ignoring / reading:.2f} of those beside as many "
            "that read.",
        ]
    )


ALONE, READING, IGNORING = "alone", "beside a crowd that reads", "beside one that reads nothing"


async def measure(house: House) -> list[Seen]:
    """Each crowd twice, so that drift meets both (A B B A); a first round warms up."""
    crowds = {ALONE: nobody, READING: readers, IGNORING: non_readers}
    order = (ALONE, READING, IGNORING, IGNORING, READING, ALONE)
    await few(house, clock() + 5)
    await house.at_rest()
    return [await phase(name, house, crowds[name]) for name in order]


def main() -> None:
    """Start the gateway, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--crowd", type=int, default=1000)
    parser.add_argument("--long", type=int, default=32)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--max-buffer", default="16KiB", help="gateway.max_buffer; small is hard.")
    options = parser.parse_args()
    settings = [f"gateway.max_buffer={options.max_buffer}"]
    deployment = load(options.deployment, overrides=settings).deployment
    half = max(1, deployment.engine.limits.max_batch_size // 2)
    classes = {
        "interactive": {"weight": 8, "ttft_ms": 500},
        "batch": {"weight": 1, "max_queued": 2 * options.crowd, "max_running": half},
    }
    settings.append(f"scheduling.classes={json.dumps(classes)}")
    root = options.workspace or options.deployment.parent / ".toolkit"
    deployed = find_deployed(deployment, root)
    assert deployed.tokenizer, "the repository has no tokenizer"
    words = ["--workspace", str(root)]
    with gateway(options.deployment, settings, words) as port:
        holder = procfs.listener(port)
        assert holder, "nobody listens"
        house = House(port, holder.pid, deployment.name, Tokens(deployed.tokenizer), options)
        found = asyncio.run(measure(house))
    print(f"\n{report(found, options, int(deployment.gateway.max_buffer))}")


if __name__ == "__main__":
    main()
