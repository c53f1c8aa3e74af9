"""One measurement: `toolkit bench` as a process of its own, and what its report says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from peer_cpu import cpu_seconds
from peer_servers import Peer


@dataclass(frozen=True)
class Measurement:
    """One peer under one load, once. Times in ms; ``background`` is the share of all cores that
    was busy just before, when nobody was measured; ``server_cpu`` the server's processor seconds
    per 1,000 output tokens of the whole run, warm-up included."""

    round: int
    peer: str
    workload: str
    users: int
    tokens_per_s: float
    ttft_p50: float
    ttft_p95: float
    itl_p50: float
    tpot_p50: float
    e2e_p50: float
    kv_reuse: float
    requests: int
    output_tokens: float
    client_saturated: bool
    background: float
    server_cpu: float

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Method:
    """What every peer gets alike."""

    tokenizer: Path
    duration: float
    warmup: float
    seed: int
    timeout: float = 900.0


def bench(peer: Peer, method: Method, words: Sequence[object]) -> dict[str, object]:
    """The report of `toolkit bench` against a peer; every request has to complete."""
    command = [sys.executable, "-m", "toolkit", "bench", "--url", peer.url, "--model", peer.model]
    command += ["--protocol", peer.protocol, "--tokenizer", str(method.tokenizer)]
    command += ["--timeout", str(method.timeout), "--fail-on-errors", "--json", "--quiet"]
    command += [str(word) for word in words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{peer.name}: {' '.join(command)} ended with {done.returncode}")
    report: dict[str, object] = json.loads(done.stdout)
    return report


def check_counts(peer: Peer, method: Method, prompt: int = 96, output: int = 24) -> None:
    """Warm up; and make sure that it counts and generates exactly the tokens asked for."""
    words = ["--concurrency", 4, "--requests", 4, "--seed", method.seed + 900 + peer.offset]
    words += ["--prompt-tokens", prompt, "--output-tokens", output]
    words += ["--with", "stop.warmup_requests=4"]
    found = bench(peer, method, words)["points"][0]["distributions"]  # type: ignore[index]
    for name, wanted in (("prompt_tokens", prompt), ("output_tokens", output)):
        seen = {found[name]["curve"][0], found[name]["curve"][-1]}
        if seen != {float(wanted)}:
            raise SystemExit(f"{peer.name}: {name} from {min(seen)} to {max(seen)}, not {wanted}")


def measure(peer: Peer, method: Method, number: int, scenario: Path, users: int) -> Measurement:
    """One load on one peer. The prompts depend on round, workload and users, not on the peer."""
    background = busy_share(1.0)
    seed = method.seed + 10 * number + peer.offset
    words = ["--scenario", scenario, "--concurrency", users, "--seed", seed]
    words += ["--duration", method.duration, "--warmup", method.warmup]
    before = cpu_seconds(peer.root)
    report = bench(peer, method, words)
    spent = cpu_seconds(peer.root) - before
    return read_report(report, number, peer.name, scenario.stem, users, background, spent)


def read_report(
    report: dict[str, object],
    number: int,
    peer: str,
    workload: str,
    users: int,
    background: float,
    spent: float,
) -> Measurement:
    """The figures of one load's report; ``spent`` are the server's processor seconds."""
    point = report["points"][0]  # type: ignore[index]
    spread, totals = point["distributions"], point["totals"]

    def quantile(name: str, which: str) -> float:
        return float(spread[name]["stats"][which]["value"])

    return Measurement(
        round=number,
        peer=peer,
        workload=workload.removeprefix("scenario-"),
        users=users,
        tokens_per_s=float(totals["output_throughput"]["value"]),
        ttft_p50=quantile("ttft", "p50"),
        ttft_p95=quantile("ttft", "p95"),
        itl_p50=quantile("itl", "p50"),
        tpot_p50=quantile("tpot", "p50"),
        e2e_p50=quantile("e2e", "p50"),
        kv_reuse=float(totals.get("kv_reuse", {"value": 0.0})["value"]),
        requests=sum(repeat["requests"] for repeat in point["repeats"]),
        output_tokens=quantile("output_tokens", "mean"),
        client_saturated=any(repeat["client"]["reasons"] for repeat in point["repeats"]),
        background=background,
        server_cpu=1000 * spent / sum(span["output_tokens"] for span in _spans(point)),
    )


def _spans(point: dict[str, list[dict[str, list[dict[str, float]]]]]) -> list[dict[str, float]]:
    """All requests of a load, those of the warm-up included."""
    return [span for repeat in point["repeats"] for span in repeat["spans"]]


def busy_share(seconds: float) -> float:
    """How busy all cores are now, 0 to 1."""
    before = _ticks()
    time.sleep(seconds)
    busy, total = (after - old for after, old in zip(_ticks(), before, strict=True))
    return busy / max(total, 1)


def _ticks() -> tuple[int, int]:
    """Busy and all clock ticks since the start (user, nice, system, idle, iowait, irq, ...)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
