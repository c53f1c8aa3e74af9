"""How many streamed tokens a second the load generator takes before it bends what it measures.

A server that only keeps time (benchmarks/paced_server.py) sends each stream a token every 20 ms.
What the load generator measures is known beforehand, then: the tokens a second are the streams'
number by 0.02, the inter-token latency is 20 ms. More and more streams are measured from one
process and from two, interleaved, until the figures differ from that:

    python benchmarks/client_ceiling.py [--streams 64,128,...] [--processes 1,2] [--output FILE]

Server and client share the machine, so the last lines of a small one say what all of it can do.
benchmarks/client_cost.py holds the same client's cost against other libraries'.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from toolkit.bench.load import ClosedLoop, Stop  # noqa: E402 - the path comes first
from toolkit.bench.machine import this_machine  # noqa: E402
from toolkit.bench.openai_http import OpenAiTarget  # noqa: E402
from toolkit.bench.report import Point  # noqa: E402
from toolkit.bench.runner import Options, run  # noqa: E402
from toolkit.bench.workload import Independent  # noqa: E402

TICK_MS = 20.0
TOKENS = 100
OUTPUT = ROOT / "benchmarks" / "results" / "client-ceiling.md"


@dataclass(frozen=True)
class Row:
    """One number of streams, from one number of processes."""

    streams: int
    processes: int
    tokens_per_s: float
    itl_p50_ms: float
    itl_p99_ms: float
    cpu_share: float
    reasons: tuple[str, ...]
    server_cpu_share: float
    server_late_ms: float

    @property
    def offered(self) -> float:
        """Tokens a second that the server sends."""
        return self.streams / TICK_MS * 1000

    @property
    def honest(self) -> bool:
        """Whether the figures are the server's."""
        return not self.reasons and self.tokens_per_s > 0.95 * self.offered


@contextmanager
def server() -> Iterator[int]:
    """Runs for the block; its port."""
    command = [sys.executable, str(ROOT / "benchmarks" / "paced_server.py")]
    command += ["--tick-ms", str(TICK_MS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def measure(port: int, streams: int, processes: int, seconds: float) -> Row:
    """One row of the table."""
    stats(port)
    workload = Independent.model_validate({"prompt_tokens": 8, "output_tokens": TOKENS})
    # A stream begins in its slot's next turn, so a request takes its ticks and up to one more.
    options = Options(
        stop=Stop(duration=seconds, warmup=2.5), processes=processes, title="client ceiling"
    )
    target = OpenAiTarget("127.0.0.1", port, "paced")
    (point,) = run(target, workload, ClosedLoop(concurrency=streams), options).points
    told = stats(port)
    return row(point, streams, told, seconds + 2.5)


def row(point: Point, streams: int, told: dict[str, float], seconds: float) -> Row:
    """From the report."""
    itl, (repeat,) = point.distributions["itl"].stats, point.repeats
    return Row(
        streams,
        repeat.client.processes,
        point.totals["output_throughput"].value,
        itl["p50"].value,
        itl["p99"].value,
        repeat.client.cpu_share,
        repeat.client.reasons,
        told["cpu_s"] / seconds,
        told["late_p99_ms"],
    )


def stats(port: int) -> dict[str, float]:
    """The server's, since the last time."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as answer:
        found: dict[str, float] = json.load(answer)
        return found


def table(rows: list[Row]) -> str:
    """In Markdown, with what it comes to."""
    machine = this_machine()
    lines = [
        "# What the load generator takes",
        "",
        f"`python benchmarks/client_ceiling.py` on {datetime.now(timezone.utc):%Y-%m-%d}: "
        f"{machine.cpu}, {machine.cores} cores that client and server share (load average "
        f"{os.getloadavg()[0]:.1f} at the end), {machine.system}, Python "
        f"{platform.python_version()}. OpenAI completions over HTTP, a token to each stream every "
        f"{TICK_MS:g} ms.",
        "",
        "| streams | processes | offered tokens/s | measured | ITL p50 ms | ITL p99 ms "
        "| busiest process | server's core | server late p99 ms | the client says |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in sorted(rows, key=lambda one: (one.streams, one.processes)):
        said = "; ".join(one.reasons) or "not saturated"
        lines.append(
            f"| {one.streams} | {one.processes} | {one.offered:,.0f} | {one.tokens_per_s:,.0f} "
            f"| {one.itl_p50_ms:.1f} | {one.itl_p99_ms:.1f} | {one.cpu_share:.0%} "
            f"| {one.server_cpu_share:.0%} | {one.server_late_ms:.1f} | {said} |"
        )
    lines.append("")
    for processes in sorted({one.processes for one in rows}):
        good = [one.offered for one in rows if one.processes == processes and one.honest]
        most = f"up to {max(good):,.0f} tokens/s" if good else "at none of these"
        lines.append(
            f"With {processes} process{'es' if processes > 1 else ''}, not saturated and within "
            f"5% of what was sent: {most}.  "
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", default="64,128,256,512,1024,1536")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    # A stream is a file, here and in the server, which inherits the limit.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows = []
    with server() as port:
        for streams in map(int, options.streams.split(",")):
            for processes in map(int, options.processes.split(",")):
                rows.append(measure(port, streams, processes, options.seconds))
                last = rows[-1]
                print(
                    f"{streams} streams from {processes}: {last.tokens_per_s:,.0f} of "
                    f"{last.offered:,.0f} tokens/s, {'; '.join(last.reasons) or 'not saturated'}",
                    flush=True,
                )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
