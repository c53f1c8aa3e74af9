"""What continuous batching and prefix reuse are worth on a deployed server.

    python benchmarks/batching_and_reuse.py examples/smollm2.yaml --rounds 3

Tokens a second with one user and with 32, in turn; time to the first token of a prompt with a
fresh prefix of 1,200 tokens, and of the next question after the same prefix.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from pathlib import Path

from toolkit.bench.endpoint import find_deployed, target_at
from toolkit.bench.lengths import Fixed
from toolkit.bench.load import ClosedLoop, Stop
from toolkit.bench.records import Request, clock
from toolkit.bench.runner import Options, measure
from toolkit.bench.target import Target
from toolkit.bench.vocabulary import Tokens
from toolkit.bench.workload import Independent, Material
from toolkit.spec.loading import load

PREFIX, QUESTION = 1200, 24


async def throughput(target: Target, words: Tokens, users: int, salt: str) -> float:
    """Output tokens a second of ``users`` users who never pause."""
    workload = Independent(prompt_tokens=Fixed(tokens=24), output_tokens=Fixed(tokens=96))
    stop = Stop(requests=max(4, 2 * users), warmup_requests=users)
    options = Options(stop=stop, material=Material(words, salt=salt))
    found = await measure(target, workload, ClosedLoop(concurrency=users), options, label=salt)
    assert found is not None, "nothing was measured"
    return sum(r.output_tokens for r in found.window.counted) / found.window.length


async def first_tokens(target: Target, words: Tokens, dice: random.Random) -> tuple[float, float]:
    """Milliseconds to the first token after a fresh prefix, and after the same one again."""
    prefix = words.make(PREFIX, dice)
    found = []
    for number in range(2):
        prompt = f"{prefix} {words.make(QUESTION, dice)}"
        record = await target.generate(
            Request(number, prompt, max_tokens=4, intended=clock(), min_tokens=4)
        )
        assert record.ok, record.failure
        found.append(1000 * (record.responses[0] - record.sent))
    return found[0], found[1]


async def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    deployment = load(options.deployment).deployment
    root = options.workspace or options.deployment.parent / ".toolkit"
    deployed = find_deployed(deployment, root)
    assert deployed.tokenizer, "the repository has no tokenizer"
    words = Tokens(deployed.tokenizer)
    target = target_at(deployed.grpc_url, deployment.name, "grpc", timeout=600)
    await target.open()
    dice = random.Random(options.seed)
    ratios, savings = [], []
    for number in range(options.rounds):
        one = await throughput(target, words, 1, f"{options.seed}-one-{number}")
        many = await throughput(target, words, 32, f"{options.seed}-many-{number}")
        ratios.append(many / one)
        print(f"1 user {one:.1f} tok/s, 32 users {many:.1f} tok/s: {ratios[-1]:.1f}x", flush=True)
        for _ in range(3):
            cold, warm = await first_tokens(target, words, dice)
            savings.append(1 - warm / cold)
            print(f"TTFT {cold:.0f} ms, same prefix again {warm:.0f} ms: -{savings[-1]:.0%}")
    print(f"median {statistics.median(ratios):.1f}x, TTFT -{statistics.median(savings):.1%}")
    await target.close()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
