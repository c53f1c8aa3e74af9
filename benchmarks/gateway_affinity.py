"""What prefix affinity is worth: conversations over two replicas, with and without it.

    python benchmarks/gateway_affinity.py examples/smollm2.yaml

Builds the file if need be and starts two Tritons of it, each with a KV cache that holds about half
of the conversations: together they can keep all of them, if none is kept twice. Users bring a text,
then ask about it over several turns with pauses; each turn's prompt is all that was said before and
a new message. Two gateways before the same Tritons are used in turn (A B, B A ...), with the same
messages after a beginning of its own, so that no round finds another's prefixes. Takes about three
minutes a round and half a minute to start.
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
from two_tritons import tritons

from toolkit.bench.openai_http import OpenAiTarget
from toolkit.bench.records import Request, RequestRecord, clock
from toolkit.bench.vocabulary import Tokens
from toolkit.gateway.simulation import percentile


@dataclass(frozen=True)
class Talk:
    """Every user's conversation: token counts, turns, and the mean pause before the next.

    ``text`` precedes the first message, so that the caches are full from the first turns on; of
    conversations that begin short, two copies would fit for the first half of a round.
    """

    system: int = 32
    text: int = 320
    message: int = 48
    answer: int = 24
    turns: int = 8
    pause: float = 6.0


async def converse(
    target: OpenAiTarget, words: Tokens, talk: Talk, system: str, dice: random.Random
) -> list[RequestRecord]:
    """One user's conversation; its records, first turn first."""
    said, records = f"{system} {words.make(talk.text, dice)}", []
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
    port: int, model: str, words: Tokens, talk: Talk, users: int, salt: str, name: str
) -> Round:
    """All users' conversations; the first turns, of which nothing can be known, do not count."""
    target = OpenAiTarget("127.0.0.1", port, model, timeout=600)
    await target.open()
    # Only this differs between the two gateways: the caches know nothing, the load is the same.
    system = words.make(talk.system, random.Random(f"{salt}-{name}"))
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
    ttfts = [record.responses[0] - record.sent for record in later]
    return Round(cached / prompt, percentile(ttfts, 0.5), percentile(ttfts, 0.95))


@dataclass(frozen=True)
class Round:
    """What one gateway came to in one round: a share, and seconds."""

    hit_rate: float
    ttft_p50: float
    ttft_p95: float


NAMES = ("least loaded", "prefix affinity")


def measure(
    ports: Sequence[int], options: argparse.Namespace, model: str, words: Tokens
) -> dict[str, list[Round]]:
    """All rounds; prints each."""
    found: dict[str, list[Round]] = {name: [] for name in NAMES}
    columns = ("hit rate", "TTFT ms, median", "95%")
    head = [f"{name}: {column}" for name in NAMES for column in columns]
    print("| round | " + " | ".join(head) + " |\n| --- |" + " ---: |" * len(head), flush=True)
    for number in range(options.rounds):
        order = list(zip(NAMES, ports, strict=True))
        for name, port in order if number % 2 == 0 else order[::-1]:
            salt = f"{options.seed}-{number}"
            work = round_of(port, model, words, Talk(), options.users, salt, name)
            found[name].append(asyncio.run(work))
        print(f"| {number + 1} | {_row(found, -1)} |", flush=True)
    return found


def _row(found: dict[str, list[Round]], number: int) -> str:
    rounds = [found[name][number] for name in NAMES]
    return " | ".join(
        f"{one.hit_rate:.3f} | {1000 * one.ttft_p50:.0f} | {1000 * one.ttft_p95:.0f}"
        for one in rounds
    )


def verdict(found: dict[str, list[Round]]) -> str:
    """Medians over the rounds of what affinity came to, against load alone."""
    pairs = list(zip(*(found[name] for name in NAMES), strict=True))
    hits = statistics.median(b.hit_rate / a.hit_rate for a, b in pairs)
    middle = statistics.median(b.ttft_p50 / a.ttft_p50 for a, b in pairs)
    tail = statistics.median(b.ttft_p95 / a.ttft_p95 for a, b in pairs)
    return (
        f"Prefix affinity over least loaded: KV hit rate {hits:.2f} times (at least 1.5 wanted), "
        f"median TTFT {middle:.2f} times, p95 TTFT {tail:.2f} times (at most 1 wanted)."
    )


def main() -> None:
    """Start everything, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=24)
    parser.add_argument("--slots", type=int, default=8, help="Of each replica.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    # The cache holds what its slots could need at most.
    settings = [
        f"engine.limits.max_batch_size={options.slots}",
        "engine.limits.max_seq_len=1024",
        "engine.limits.max_input_len=960",
    ]
    with tritons(options.deployment, 2, options.workspace, settings) as servers, ExitStack() as on:
        ports = [
            on.enter_context(
                gateway(
                    options.deployment,
                    [*settings, f"scheduling.prefix_affinity={affinity}"],
                    servers.words,
                )
            )
            for affinity in ("false", "true")
        ]
        found = measure(ports, options, servers.name, Tokens(servers.tokenizer))
    print(f"\n{verdict(found)}")


if __name__ == "__main__":
    main()
