"""The toolkit's load generator against NVIDIA's AIPerf: same endpoint, same requests, in turn.

    python benchmarks/aiperf_cross_check.py              # writes results/aiperf.md

First against a server whose times are known, then against the gateway of a deployment. Both
clients send the very same bodies, each request once, from a fixed number of users; KV reuse is
off, so that nobody finds the other's prompts cached. AIPerf gets an environment of its own
(1.2 GB, made at the first run). AIPerf works with several processes, and what they take of shared
cores is taken from the server: half of the cores are the servers', then, and half the client's,
whichever it is. Without --apart they share all, as a load test on the server's own machine would;
the processor time of both clients is told.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from aiperf_files import (
    SUMMARY,
    Figures,
    make_requests,
    read_aiperf,
    read_toolkit,
    write_for_aiperf,
    write_for_toolkit,
)
from peer_environments import HERE, Environment, default_folder, environment
from peer_loads import busy_share
from peer_servers import Peer, deployed, end_on_sigterm, launched, ways

from toolkit.bench.machine import this_machine
from toolkit.bench.vocabulary import Tokens
from toolkit.spec.loading import load

CLIENTS = ("toolkit", "AIPerf")
METRICS = ("tokens_per_s", "ttft_p50", "tpot_p50", "e2e_p50")
TITLES = ("output tokens/s", "TTFT p50 ms", "TPOT p50 ms", "E2E p50 ms")
AGREE = 0.05
LEAST = 24
"""Requests of a run: the median of fewer says little."""


@dataclass(frozen=True)
class Run:
    """One client's run; ``processor`` is the CPU time of the client in seconds."""

    target: str
    users: int
    client: str
    round: int
    figures: Figures
    processor: float
    background: float


@dataclass(frozen=True)
class Place:
    """What both clients get alike."""

    home: Environment
    peer: Peer
    tokenizer: Path
    folder: Path
    users: int


def run_toolkit(place: Place) -> Figures:
    """`toolkit bench` over the prompts file."""
    command = [sys.executable, "-m", "toolkit", "bench", "--url", place.peer.url]
    command += ["--model", place.peer.model, "--protocol", "openai", "--json", "--quiet"]
    command += ["--tokenizer", str(place.tokenizer), "--scenario", str(place.folder / "bench.yaml")]
    command += ["--concurrency", str(place.users), "--fail-on-errors", "--timeout", "900"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return read_toolkit(json.loads(done.stdout))


def run_aiperf(place: Place, count: int) -> Figures:
    """`aiperf profile` over the same bodies."""
    out = Path(tempfile.mkdtemp(dir=place.folder))
    command = [str(place.home.folder / "bin" / "aiperf"), "profile", "--model", place.peer.model]
    command += ["--url", place.peer.url, "--endpoint-type", "completions", "--streaming"]
    command += ["--input-file", str(place.folder / "aiperf.jsonl")]
    command += ["--custom-dataset-type", "single_turn", "--dataset-sampling-strategy", "sequential"]
    command += ["--concurrency", str(place.users), "--request-count", str(count)]
    command += ["--tokenizer", str(place.tokenizer), "--use-server-token-count"]
    command += ["--ui-type", "none", "--no-gpu-telemetry", "--no-server-metrics"]
    command += ["--output-artifact-dir", str(out)]
    # Offline mode would make it look for the tokenizer's folder on the hub.
    hidden = ("PYTHONPATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    settings = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode or not (out / SUMMARY).is_file():
        raise SystemExit(f"AIPerf failed:\n{done.stdout[-3000:]}")
    return read_aiperf(json.loads((out / SUMMARY).read_text()))


def measure(place: Place, client: str, count: int, number: int, target: str) -> Run:
    """One run, and what it cost."""
    background = busy_share(1.0)
    before = _children()
    figures = run_toolkit(place) if client == "toolkit" else run_aiperf(place, count)
    spent = _children() - before
    print(
        f"{target}, {place.users} users, round {number + 1}, {client}: "
        f"{figures.tokens_per_s:.1f} tokens/s, TTFT {figures.ttft_p50:.1f} ms",
        file=sys.stderr,
        flush=True,
    )
    return Run(target, place.users, client, number, figures, spent, background)


def _children() -> float:
    """Processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def rounds(place: Place, target: str, options: argparse.Namespace) -> Iterator[Run]:
    """Both clients in turn with requests that are new in every round."""
    count = max(LEAST, place.users * options.requests_each)
    vocabulary = Tokens(place.tokenizer)
    for number in range(options.rounds):
        asked = make_requests(vocabulary, count, f"{options.seed}-{place.users}-{number}")
        write_for_aiperf(asked, place.folder / "aiperf.jsonl")
        write_for_toolkit(asked, place.folder / "bench.yaml")
        for client in CLIENTS if number % 2 == 0 else CLIENTS[::-1]:
            run = measure(place, client, count, number, target)
            wanted = (count, sum(one.tokens for one in asked))
            if (run.figures.requests, run.figures.output_tokens) != wanted:
                raise SystemExit(f"{client} counts {run.figures}, {wanted} were asked for")
            yield run


@contextmanager
def on_cores(chosen: set[int]) -> Iterator[None]:
    """Processes that are started meanwhile run on these cores only, threads sized to them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def shared_out(apart: bool) -> tuple[set[int], set[int]]:
    """The servers' cores and the client's."""
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    if not apart or not half:
        return set(cores), set(cores)
    return set(cores[:half]), set(cores[half:])


@contextmanager
def paced(options: argparse.Namespace) -> Iterator[Peer]:
    """The server whose times are known."""
    command = [sys.executable, str(HERE / "paced_server.py")]
    command += ["--ttft-ms", str(options.paced_ttft), "--itl-ms", str(options.paced_itl)]
    with launched("paced server", command, {}, options.folder) as (port, group):
        yield Peer("paced", f"http://127.0.0.1:{port}", "paced", "openai", group, group)


def all_runs(options: argparse.Namespace, folder: Path) -> Iterator[Run]:
    """Every target and number of users."""
    home = environment(options.folder, "aiperf")
    workspace = options.workspace or options.folder / "workspace"
    name = load(options.deployment).deployment.name
    servers, clients = shared_out(options.apart)
    with ExitStack() as stack:
        with on_cores(servers):
            found = stack.enter_context(
                deployed(options.deployment, workspace, "engine.kv_cache.reuse=false")
            )
            targets = {"gateway": ways(found, name, workspace)[0]}
            if options.paced:
                targets = {"paced": stack.enter_context(paced(options)), **targets}
        assert found.tokenizer, "the repository has no tokenizer"
        stack.enter_context(on_cores(clients))
        for target, peer in targets.items():
            for users in options.users:
                place = Place(home, peer, found.tokenizer, folder, users)
                yield from rounds(place, target, options)


def figures(runs: Sequence[Run], target: str, users: int, client: str) -> list[list[float]]:
    """Of each metric, one value a round."""
    chosen = [r for r in runs if (r.target, r.users, r.client) == (target, users, client)]
    chosen.sort(key=lambda run: run.round)
    return [[getattr(run.figures, each) for run in chosen] for each in METRICS]


def apart(runs: Sequence[Run], target: str, users: int) -> list[float]:
    """By how much the toolkit's figures differ from AIPerf's, of each metric.

    The median of the rounds' own differences: rounds have different requests and another state
    of the machine, the two runs of a round have the same requests.
    """
    ours, theirs = (figures(runs, target, users, client) for client in CLIENTS)
    return [
        statistics.median(a / b - 1 for a, b in zip(mine, other, strict=True))
        for mine, other in zip(ours, theirs, strict=True)
    ]


def loads(runs: Sequence[Run]) -> list[tuple[str, int]]:
    """What was measured: targets with numbers of users."""
    return list(dict.fromkeys((run.target, run.users) for run in runs))


def table(runs: Sequence[Run]) -> Iterator[str]:
    """Medians of both and the toolkit's difference from AIPerf."""
    yield f"| target | users | client | {' | '.join(TITLES)} | client's CPU s |"
    yield "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    for target, users in loads(runs):
        for client in CLIENTS:
            spent = statistics.median(
                r.processor
                for r in runs
                if (r.target, r.users, r.client) == (target, users, client)
            )
            values = map(statistics.median, figures(runs, target, users, client))
            cells = " | ".join(f"{value:,.1f}" for value in values)
            yield f"| {target} | {users} | {client} | {cells} | {spent:.1f} |"
        cells = " | ".join(f"{value:+.1%}" for value in apart(runs, target, users))
        yield f"| {target} | {users} | difference | {cells} | |"


def verdict(runs: Sequence[Run]) -> str:
    """Whether throughput and median TTFT agree everywhere."""
    worst = max(abs(each) for load in loads(runs) for each in apart(runs, *load)[:2])
    said = "agree" if worst <= AGREE else "DO NOT agree"
    return f"Throughput and median TTFT {said} within {AGREE:.0%}: at most {worst:.1%} apart."


def write(runs: Sequence[Run], options: argparse.Namespace, version: str) -> None:
    """The result file."""
    machine = this_machine()
    day = datetime.now(timezone.utc).date().isoformat()
    busy = statistics.median(run.background for run in runs)
    where = "half of them the client's" if options.apart else "that client and server share"
    lines = [
        "# The load generator against AIPerf",
        "",
        f"`python benchmarks/aiperf_cross_check.py` on {day}: {machine.cpu}, {machine.cores} cores "
        f"{where}, {machine.system}, Python {machine.python}, AIPerf "
        f"{version}. {'LOADED' if busy > 0.15 else 'Quiet'} machine: {busy:.0%} of the cores busy "
        f"before a run. Medians of {options.rounds} rounds in turn, {options.requests_each} "
        f"requests a user and at least {LEAST}, the same bodies for both, no KV reuse; differences "
        "are medians of the rounds' own.",
        "",
        verdict(runs),
        "",
        f"`paced` is a server that sends a first token after {options.paced_ttft:g} ms and one "
        f"every {options.paced_itl:g} ms, so what is right is known there.",
        "",
        *table(runs),
        "",
    ]
    options.output.write_text("\n".join(lines))
    print("\n".join(lines))


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--deployment", type=Path, default=HERE / "smollm2-bf16.yaml")
    add("--folder", type=Path, default=default_folder(), help="environments and logs")
    add("--workspace", type=Path, help="of the toolkit; default: in --folder")
    add("--users", type=lambda text: tuple(map(int, text.split(","))), default=(1, 8, 32))
    add("--rounds", type=int, default=6)
    add("--requests-each", type=int, default=6, help="requests a user")
    add("--paced", action=argparse.BooleanOptionalAction, default=True)
    add("--apart", action=argparse.BooleanOptionalAction, default=True)
    add("--paced-ttft", type=float, default=150.0)
    add("--paced-itl", type=float, default=25.0)
    add("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    add("--output", type=Path, default=HERE.parent / "results" / "aiperf.md")
    options = parser.parse_args()
    end_on_sigterm()
    options.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for run in all_runs(options, Path(folder)):
            runs.append(run)
    version = environment(options.folder, "aiperf").version("aiperf")
    write(runs, options, version)
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
