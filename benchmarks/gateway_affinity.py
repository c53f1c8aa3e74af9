"""What prefix affinity is worth: conversations over two replicas, with and without it.

    python benchmarks/gateway_affinity.py examples/smollm2.yaml \\
        --replica HOST:GRPC/METRICS --replica HOST:GRPC/METRICS

Both Tritons serve the same deployment. Users hold conversations of several turns with pauses;
each turn's prompt is all that was said before and a new message. The two gateways are used in
turn (A B, B A ...), each round with words of its own, so that no round finds another's prefixes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from gateway_process import gateway

from toolkit.bench.endpoint import find_deployed
from toolkit.bench.openai_http import OpenAiTarget
from toolkit.bench.records import Request, RequestRecord, clock
from toolkit.bench.vocabulary import Tokens
from toolkit.gateway.simulation import percentile
from toolkit.spec.loading import load


@dataclass(frozen=True)
class Talk:
    """Every user's conversation: token counts, turns, and the mean pause before the next."""

    system: int = 32
    message: int = 112
    answer: int = 24
    turns: int = 4
    pause: float = 2.0


async def converse(
    target: OpenAiTarget, words: Tokens, talk: Talk, system: str, dice: random.Random
) -> list[RequestRecord]:
    """One user's conversation; its records, first turn first."""
    said, records = system, []
    await asyncio.sleep(dice.uniform(0, 2 * talk.pause))
    for turn in range(talk.turns):
        said = f"{said} {words.make(talk.message, dice)}"
        request = Request(turn, said, talk.answer, clock(), talk.answer)
        record = await target.generate(request)
        assert record.ok, record.failure
        records.append(record)
        said += record.text
        await asyncio.sleep(dice.expovariate(1 / talk.pause))
    return records


async def round_of(
    port: int, model: str, words: Tokens, talk: Talk, users: int, salt: str
) -> tuple[float, float]:
    """KV hit rate and p95 of the time to the first token, of all turns after the first."""
    target = OpenAiTarget("127.0.0.1", port, model, timeout=600)
    await target.open()
    system = words.make(talk.system, random.Random(salt))
    talks = await asyncio.gather(
        *(
            converse(target, words, talk, system, random.Random(f"{salt}-{user}"))
            for user in range(users)
        )
    )
    await target.close()
    later = [record for records in talks for record in records[1:]]
    prompt = sum(record.usage.prompt_tokens or 0 for record in later)
    cached = sum(record.usage.cached_tokens or 0 for record in later)
    return cached / prompt, percentile((r.responses[0] - r.sent for r in later), 0.95)


def compare(ports: Sequence[int], options: argparse.Namespace, model: str, words: Tokens) -> None:
    """Measure in turn and print."""
    names = ("least loaded", "prefix affinity")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    print("| round | " + " | ".join(f"{n}: hit rate | p95 TTFT ms" for n in names) + " |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for number in range(options.rounds):
        order = list(zip(names, ports, strict=True))
        for name, port in order if number % 2 == 0 else order[::-1]:
            salt = f"{options.seed}-{number}-{name}"
            work = round_of(port, model, words, Talk(), options.users, salt)
            found[name].append(asyncio.run(work))
        row = [f"{found[n][-1][0]:.3f} | {1000 * found[n][-1][1]:.0f}" for n in names]
        print(f"| {number + 1} | {' | '.join(row)} |", flush=True)
    rates = [statistics.median(rate for rate, _ in found[name]) for name in names]
    tails = [statistics.median(tail for _, tail in found[name]) for name in names]
    print(f"\nmedian hit rate {rates[1] / rates[0]:.2f}x, p95 TTFT {tails[1] / tails[0]:.2f}x")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--replica", action="append", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=12)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    deployment = load(options.deployment).deployment
    deployed = find_deployed(
        deployment, options.workspace or options.deployment.parent / ".toolkit"
    )
    assert deployed.tokenizer, "the repository has no tokenizer"
    replicas = [word for each in options.replica for word in ("--replica", each)]
    with ExitStack() as stack:
        ports = [
            stack.enter_context(
                gateway(options.deployment, [f"scheduling.prefix_affinity={on}"], replicas)
            )
            for on in ("false", "true")
        ]
        compare(ports, options, deployment.name, Tokens(deployed.tokenizer))


if __name__ == "__main__":
    main()
