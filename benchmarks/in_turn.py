"""Two targets measured in turn, each by a client process of its own that stays up throughout."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from toolkit.bench.chat import PlainChat
from toolkit.bench.lengths import Fixed, Normal
from toolkit.bench.load import ClosedLoop, Stop
from toolkit.bench.records import RequestRecord
from toolkit.bench.runner import Options, measure
from toolkit.bench.statistics import t_quantile
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
    # Answers of one length keep in step: a window would hold a whole number of waves, or not.
    lengths = Normal(distribution="normal", mean=output, std=output / 3, min=2, max=2 * output)
    answers = Fixed(tokens=output) if users == 1 else lengths
    workload = Independent(prompt_tokens=Fixed(tokens=prompt), output_tokens=answers)
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


class Series:
    """One figure of two targets, measured in turn, and what the second's is to the first's."""

    def __init__(self) -> None:
        self.pairs: list[tuple[float, float]] = []

    def block(self, first: Worker, second: Worker, kind: str, salt: str) -> tuple[float, float]:
        """A B B A: two pairs of neighbours. Drift that goes on hits both targets alike."""
        figures = [
            one.ask(kind, f"{salt}-{half}")
            for half, one in (("a", first), ("a", second), ("b", second), ("b", first))
        ]
        self.pairs += [(figures[0], figures[1]), (figures[3], figures[2])]
        return (figures[0] + figures[3]) / 2, (figures[1] + figures[2]) / 2

    def ratio(self) -> tuple[float, float, float]:
        """Geometric mean of the pairs' ratios, and its 95% confidence interval (Student's t)."""
        logs = [math.log(b / a) for a, b in self.pairs]
        return tuple(math.exp(each) for each in _interval(logs))  # type: ignore[return-value]

    def difference(self) -> tuple[float, float, float]:
        """Mean of the pairs' differences, and its 95% confidence interval."""
        return _interval([b - a for a, b in self.pairs])


def _interval(values: list[float]) -> tuple[float, float, float]:
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = t_quantile(0.975, len(values) - 1) * error
    return mean, mean - reach, mean + reach


def compare(base: str, other: str, blocks: int, minutes: float) -> None:
    """Measure both in turn, A B B A again and again; print each block, then the intervals.

    No block begins that would end after ``minutes``.
    """
    workers = {which: Worker(which) for which in (base, other)}
    pair, speed, ttft = (workers[base], workers[other]), Series(), Series()
    print(f"| block | {base} tok/s | {other} tok/s | ratio | {base} TTFT ms | {other} TTFT ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    began, number = time.monotonic(), 0
    while number < blocks and (time.monotonic() - began) * (1 + 1 / max(1, number)) < 60 * minutes:
        number += 1
        rates = speed.block(*pair, "throughput", f"speed{number}")
        times = ttft.block(*pair, "ttft", f"ttft{number}")
        print(
            f"| {number} | {rates[0]:.0f} | {rates[1]:.0f} | {rates[1] / rates[0]:.3f} "
            f"| {times[0]:.1f} | {times[1]:.1f} |",
            flush=True,
        )
    print(
        "\ntokens/s, {} over {}: {:.3f} (95%: {:.3f} to {:.3f})".format(other, base, *speed.ratio())
    )
    print("added median TTFT, ms: {:.1f} (95%: {:.1f} to {:.1f})".format(*ttft.difference()))
    for worker in workers.values():
        worker.close()
