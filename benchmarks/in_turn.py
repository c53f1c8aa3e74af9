"""Two targets measured in turn, each by a client process of its own that stays up throughout."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from toolkit.bench.chat import PlainChat
from toolkit.bench.lengths import Fixed
from toolkit.bench.load import ClosedLoop, Stop
from toolkit.bench.records import RequestRecord
from toolkit.bench.runner import Options, measure
from toolkit.bench.target import Target
from toolkit.bench.vocabulary import Tokens
from toolkit.bench.workload import Independent, Material


@dataclass(frozen=True)
class Method:
    """What is measured: ``streams`` users without a pause for ``duration`` seconds after
    ``warmup``; ``requests`` one after another for the first token."""

    vocabulary: Tokens
    streams: int
    duration: float
    warmup: float
    requests: int


async def tokens_per_second(target: Target, method: Method, salt: str) -> float:
    """Output tokens a second with all users."""
    stop = Stop(duration=method.duration, warmup=method.warmup)
    window = (await _measure(target, method, salt, method.streams, stop)).window
    inside = sum(_tokens_within(one, window.start, window.end) for one in window.present)
    return inside / (window.end - window.start)


def _tokens_within(record: RequestRecord, start: float, end: float) -> float:
    """A response's tokens count when it arrives; each carries an equal share."""
    if not record.responses:
        return 0.0
    share = record.output_tokens / len(record.responses)
    return share * sum(start <= when < end for when in record.responses)


async def median_ttft(target: Target, method: Method, salt: str) -> float:
    """Milliseconds to the first token, one request after another."""
    stop = Stop(requests=method.requests, warmup_requests=2)
    found = await _measure(target, method, salt, 1, stop, (8, 2))
    return 1000 * statistics.median(r.responses[0] - r.sent for r in found.window.counted)


async def _measure(
    target: Target,
    method: Method,
    salt: str,
    users: int,
    stop: Stop,
    tokens: tuple[int, int] = (64, 64),
) -> Any:
    prompt, output = tokens
    workload = Independent(prompt_tokens=Fixed(tokens=prompt), output_tokens=Fixed(tokens=output))
    found = await measure(
        target,
        workload,
        ClosedLoop(concurrency=users),
        Options(stop=stop, material=Material(method.vocabulary, PlainChat(), salt)),
        label=salt,
    )
    assert found is not None, "nothing was measured"
    failed = [r.failure for r in found.window.present if r.failure]
    assert not failed, failed[:3]
    return found


async def serve(target: Target, method: Method) -> None:
    """Answer measurement orders on stdin, one a line: kind and salt."""
    await target.open()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while order := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        kind = tokens_per_second if order[0] == "throughput" else median_ttft
        print(json.dumps(await kind(target, method, order[1])), flush=True)
    await target.close()


class Worker:
    """A child process of the running script that holds one target."""

    def __init__(self, which: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *sys.argv, "--worker", which],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def ask(self, kind: str, salt: str) -> float:
        """One measurement."""
        assert self._process.stdin
        self._process.stdin.write(f"{kind} {salt}\n")
        self._process.stdin.flush()
        return float(json.loads(self._read()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)

    def _read(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a measuring process died")
        return line


def compare(base: str, other: str, rounds: int, blocks: int = 6) -> None:
    """Measure both in turn (A B, B A ...); print each round and the medians."""
    workers = {which: Worker(which) for which in (base, other)}
    ratios, added = [], []
    print(f"| round | {base} tok/s | {other} tok/s | ratio | {base} TTFT ms | {other} TTFT ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for number in range(rounds):
        order = (base, other) if number % 2 == 0 else (other, base)
        speed = {w: workers[w].ask("throughput", f"speed{number}") for w in order}
        # Short blocks in turn: the difference is far below the drift of a minute.
        medians: dict[str, list[float]] = {w: [] for w in order}
        for block in range(blocks):
            for w in order:
                medians[w].append(workers[w].ask("ttft", f"ttft{number}-{block}"))
        ttft = {w: statistics.median(medians[w]) for w in order}
        ratios.append(speed[other] / speed[base])
        added.append(ttft[other] - ttft[base])
        print(
            f"| {number + 1} | {speed[base]:.0f} | {speed[other]:.0f} | {ratios[-1]:.3f} "
            f"| {ttft[base]:.1f} | {ttft[other]:.1f} |",
            flush=True,
        )
    print(f"\nmedian ratio {statistics.median(ratios):.3f}, ", end="")
    print(f"median added TTFT {statistics.median(added):.1f} ms")
    for worker in workers.values():
        worker.close()
