"""What Triton, the python backend and a streaming client cost on top of the bare engine.

    python benchmarks/triton_against_engine.py examples/smollm2.yaml --rounds 5

Builds and deploys the file if that is still to do, then measures the deployed server and the
same engine in a process of its own in turn (A B, A B ...), with the same prompts: token
throughput at 32 streams, median TTFT at one. Both processes stay up throughout; the one that
is not being measured has nothing to do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from engine_target import EngineTarget

from toolkit.bench.chat import PlainChat
from toolkit.bench.endpoint import find_deployed, target_at
from toolkit.bench.lengths import Fixed
from toolkit.bench.load import ClosedLoop, Stop
from toolkit.bench.records import RequestRecord
from toolkit.bench.runner import Options, measure
from toolkit.bench.target import Target
from toolkit.bench.vocabulary import Tokens
from toolkit.bench.workload import Independent, Material
from toolkit.serving.state import RunDirectory
from toolkit.spec.loading import load

STREAMS = 32
TTFT_BLOCKS = 6


async def tokens_per_second(target: Target, options: argparse.Namespace, salt: str) -> float:
    """Output tokens a second with 32 users who never pause."""
    found = await _measure(
        target, options, salt, STREAMS, Stop(duration=options.duration, warmup=options.warmup)
    )
    window = found.window
    inside = 0.0
    for record in window.present:
        inside += _tokens_within(record, window.start, window.end)
    return inside / (window.end - window.start)


def _tokens_within(record: RequestRecord, start: float, end: float) -> float:
    """A response's tokens count when it arrives; each carries an equal share."""
    if not record.responses:
        return 0.0
    share = record.output_tokens / len(record.responses)
    return share * sum(start <= when < end for when in record.responses)


async def median_ttft(target: Target, options: argparse.Namespace, salt: str) -> float:
    """Milliseconds to the first token, one request after another."""
    stop = Stop(requests=options.requests, warmup_requests=2)
    found = await _measure(target, options, salt, 1, stop, (8, 2))
    return 1000 * statistics.median(r.responses[0] - r.sent for r in found.window.counted)


async def _measure(
    target: Target,
    options: argparse.Namespace,
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
        Options(stop=stop, material=Material(options.vocabulary, PlainChat(), salt)),
        label=salt,
    )
    assert found is not None, "nothing was measured"
    failed = [r.failure for r in found.window.present if r.failure]
    assert not failed, failed[:3]
    return found


async def serve(options: argparse.Namespace, target: Target) -> None:
    """Answer measurement orders on stdin, one a line: kind and salt."""
    await target.open()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while order := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        kind = tokens_per_second if order[0] == "throughput" else median_ttft
        print(json.dumps(await kind(target, options, order[1])), flush=True)
    await target.close()


class Worker:
    """A child process that holds one target."""

    def __init__(self, which: str, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments, "--worker", which],
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


def main() -> None:
    """Parse, measure in turn, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=20.0)
    parser.add_argument("--warmup", type=float, default=5.0)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--worker", choices=["triton", "engine"])
    options = parser.parse_args()
    deployment = load(options.deployment).deployment
    root = options.workspace or options.deployment.parent / ".toolkit"
    state = RunDirectory(root, deployment.name).read()
    if state is None:
        raise SystemExit(f"first: toolkit deploy {options.deployment}")
    model = Path(state.repository) / deployment.name / "1"
    options.vocabulary = Tokens(model / "tokenizer")
    if options.worker == "engine":
        asyncio.run(serve(options, EngineTarget(model)))
    elif options.worker == "triton":
        url = find_deployed(deployment, root).grpc_url
        asyncio.run(serve(options, target_at(url, deployment.name, "grpc", timeout=300)))
    else:
        compare(options.rounds)


def compare(rounds: int) -> None:
    """Measure both in turn and print each round and the medians of the ratios."""
    workers = {which: Worker(which, sys.argv[1:]) for which in ("engine", "triton")}
    ratios, added = [], []
    print("| round | engine tok/s | Triton tok/s | ratio | engine TTFT ms | Triton TTFT ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for number in range(rounds):
        order = ("engine", "triton") if number % 2 == 0 else ("triton", "engine")
        speed = {w: workers[w].ask("throughput", f"speed{number}") for w in order}
        # Short blocks in turn: the difference is far below the drift of a minute.
        blocks: dict[str, list[float]] = {w: [] for w in order}
        for block in range(TTFT_BLOCKS):
            for w in order:
                blocks[w].append(workers[w].ask("ttft", f"ttft{number}-{block}"))
        ttft = {w: statistics.median(blocks[w]) for w in order}
        ratios.append(speed["triton"] / speed["engine"])
        added.append(ttft["triton"] - ttft["engine"])
        print(
            f"| {number + 1} | {speed['engine']:.0f} | {speed['triton']:.0f} | {ratios[-1]:.3f} "
            f"| {ttft['engine']:.1f} | {ttft['triton']:.1f} |",
            flush=True,
        )
    print(f"\nmedian ratio {statistics.median(ratios):.3f}, ", end="")
    print(f"median added TTFT {statistics.median(added):.1f} ms")
    for worker in workers.values():
        worker.close()


if __name__ == "__main__":
    main()
