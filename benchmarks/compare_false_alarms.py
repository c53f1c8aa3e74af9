"""How often `toolkit bench compare` raises an alarm about a server that did not change, and
whether it catches one that did.

    python benchmarks/compare_false_alarms.py examples/smollm2.yaml --result compare.md

Needs the file built (toolkit build); starts its own Triton on free ports. Measures the same
deployment 21 times in a row, on three servers one after another, and holds each report against
the one before: twenty comparisons in which every alarm is false. Then the deployment is
served with a setting that slows it (--inject, each in turn) and held against the last report of
the unchanged one. Without --inject it is max_batch_size, which says how many of the users are
served at once: fewer users on the unchanged server tell beforehand what each size would cost,
and the mildest that makes requests 15% slower or more is taken. Takes about eleven minutes on two
idle cores; fewer reports are made where --minutes would not do. Reports are kept in --folder, if
one is given.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.bench.chat import PlainChat
from toolkit.bench.compare import Comparison, Gate, compare, parse_gate
from toolkit.bench.endpoint import target_at
from toolkit.bench.lengths import Fixed, Uniform
from toolkit.bench.load import ClosedLoop, Stop
from toolkit.bench.report import BenchReport
from toolkit.bench.runner import Options, run
from toolkit.bench.vocabulary import Tokens
from toolkit.bench.workload import Independent, Material
from toolkit.pipeline import build
from toolkit.pipeline.beside import tokenizer_of
from toolkit.progress import Silent
from toolkit.serving.deploy import prepare, start
from toolkit.spec.loading import load
from toolkit.workspace import Workspace, default_root

GATES = ("ttft_p95 > +10%", "itl_p50 > +10%", "e2e_p50 > +10%", "output_throughput < -10%")
INJECTED = "engine.limits.max_batch_size"
REGRESSION = 0.15
UNCHANGED_PART = 0.87  # of --minutes; the rest is for the regression
SERVERS = 3
SEEN = ("better", "worse", "changed")


@dataclass(frozen=True)
class Method:
    """What is measured, and how long."""

    options: argparse.Namespace
    gates: Sequence[Gate]

    @contextmanager
    def server(self, *settings: str) -> Iterator[Served]:
        """A Triton of the deployment with these overrides, ended with the block."""
        free = [f"serving.ports.{name}=0" for name in ("http", "grpc", "metrics")]
        file = self.options.deployment
        deployment = load(file, overrides=[*free, *settings]).deployment
        root = self.options.workspace or default_root(file)
        built = build(deployment, Workspace(root), progress=Silent())
        plan = prepare(deployment, built.repository, runtime=built.runtime, progress=Silent())
        with (
            tempfile.TemporaryDirectory() as folder,
            start(plan, Path(folder), progress=Silent(), tied=True) as running,
        ):
            address = f"grpc://{running.endpoints.grpc_url}"
            yield Served(self, address, deployment.name, tokenizer_of(built.repository))


@dataclass(frozen=True)
class Served:
    """A server that can be measured."""

    method: Method
    address: str
    name: str
    tokenizer: Path

    def measure(
        self, label: str, *, users: int | None = None, repeats: int | None = None
    ) -> BenchReport:
        """One report, with prompts of its own."""
        asked = self.method.options
        made = run(
            target_at(self.address, self.name, "grpc", timeout=300),
            # Answers of one length would have all users begin together, wave after wave.
            Independent(
                prompt_tokens=Fixed(tokens=16),
                output_tokens=Uniform(distribution="uniform", low=8, high=16),
            ),
            ClosedLoop(concurrency=users or asked.users),
            Options(
                stop=Stop(duration=asked.duration, warmup=0.5),
                repeats=repeats or asked.repeats,
                seed=secrets.randbelow(2**31),
                material=Material(Tokens(self.tokenizer), PlainChat()),
                title=label,
            ),
        )
        (point,) = made.points
        rate = point.totals["output_throughput"].value
        ttft = point.distributions["ttft"].stats["p50"].value
        print(f"{label}: {rate:.1f} tokens/s, TTFT {ttft:.0f} ms", flush=True)
        if asked.folder:
            asked.folder.mkdir(parents=True, exist_ok=True)
            name = label.replace("/", "-").replace("=", "-").replace(" ", "-")
            (asked.folder / f"{name}.json").write_text(made.model_dump_json())
        return made


def unchanged(method: Method, until: float) -> list[BenchReport]:
    """Reports of the deployment as it is."""
    made: list[BenchReport] = []
    wanted = method.options.reports
    for part in range(SERVERS):
        if time.monotonic() > until:
            break
        with method.server() as served:
            while len(made) < wanted * (part + 1) // SERVERS and time.monotonic() < until:
                made.append(served.measure(f"unchanged {len(made) + 1:02}"))
    return made


def slowing(method: Method, base: BenchReport) -> str:
    """The mildest setting that should make requests slower by REGRESSION or more.

    A server that takes b requests at once finishes as many as an unchanged one does of b users,
    while all users wait for them: they wait longer as the rate is lower (Little's law).
    """
    size = method.options.users
    rate = base.points[0].totals["output_throughput"].value
    enough = rate / (1 + REGRESSION)
    with method.server() as served:
        while rate > enough and size > 1:
            size -= 1
            made = served.measure(f"{size} users", users=size, repeats=2)
            rate = made.points[0].totals["output_throughput"].value
    return f"{INJECTED}={size}"


def injected(method: Method, base: BenchReport) -> list[tuple[str, Comparison]]:
    """Each slowing setting, held against the deployment as it is."""
    found = []
    for setting in method.options.inject or [slowing(method, base)]:
        with method.server(setting) as served:
            new = served.measure(setting.rpartition(".")[2])
        found.append((setting, compare(base, new, method.gates)))
    return found


def outcome(found: Comparison) -> str:
    """What the command's exit code says."""
    return "failed" if found.having("failed") else "undecided" if found.having("undecided") else ""


def alarms(reports: Sequence[BenchReport], gates: Sequence[Gate]) -> list[str]:
    """The lines about the unchanged server."""
    compared = [compare(one, other, gates) for one, other in itertools.pairwise(reports)]
    counts = Counter(outcome(one) or "passed" for one in compared)
    seen = sum(any(row.verdict in SEEN for row in one.rows) for one in compared)
    lines = [
        f"Unchanged: {len(compared)} comparisons, **{counts['failed']} false alarms**, "
        f"{counts['undecided']} cannot tell, {counts['passed']} passed; {seen} show a change of "
        "some figure, limit or not.",
        "",
        "| limit | largest change | median sure to show | failed | cannot tell | passed |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for gate in gates:
        judged = [one for each in compared for one in each.judgements if one.gate == gate.text]
        shown = [one.difference for one in judged if one.difference]
        largest = max((abs(one.change or 0.0) for one in shown), default=0.0)
        sure = float(np.median([one.detectable or np.inf for one in shown])) if shown else np.inf
        tally = Counter(one.outcome for one in judged)
        counted = [str(tally[name]) for name in ("failed", "undecided", "passed")]
        lines.append(f"| {gate.text} | {largest:.1%} | {sure:.1%} | {' | '.join(counted)} |")
    return lines


def spreads(reports: Sequence[BenchReport], gates: Sequence[Gate]) -> list[str]:
    """How runs differ beyond what their repeats explain: what LIKENESS and RUN_TO_RUN stand for."""
    lines = [
        "| figure | repeats differ | of it within | runs differ | as their repeats explain |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for gate in gates:
        key = gate.figure.key
        runs = [report.points[0].repeats for report in reports]
        logs = np.log([[repeat.figures[key] for repeat in one] for one in runs])
        errors = [repeat.standard_errors.get(key) for one in runs for repeat in one]
        known = [error for error in errors if error is not None]
        within = f"{np.sqrt(np.mean(np.square(known))):.1%}" if known else "-"
        repeats = float(np.sqrt(np.mean(np.var(logs, axis=1, ddof=1))))
        between = float(np.std(np.mean(logs, axis=1), ddof=1))
        explained = repeats / np.sqrt(logs.shape[1])
        lines.append(
            f"| {gate.figure.name} | {repeats:.1%} | {within} | {between:.1%} | {explained:.1%} |"
        )
    return lines


def caught(found: Sequence[tuple[str, Comparison]]) -> list[str]:
    """The lines about the slowed server."""
    lines = [
        "| setting | limit | measured | between | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    regressed = missed = 0
    for setting, compared in found:
        for one in compared.judgements:
            shown = one.difference
            if shown is None or shown.change is None:
                continue
            worse = shown.change if shown.better == "lower" else -shown.change
            regressed += worse >= REGRESSION
            missed += worse >= REGRESSION and one.outcome != "failed"
            edges = f"{shown.low:+.1%} to {shown.high:+.1%}" if shown.low is not None else "-"
            lines.append(
                f"| {setting} | {one.gate} | {shown.change:+.1%} | {edges} | {one.outcome} |"
            )
    alarmed = sum(outcome(compared) == "failed" for _, compared in found)
    text = (
        f"Slowed: **{alarmed} of {len(found)} caught**. Of {regressed} figures that were "
        f"{REGRESSION:.0%} or more worse, {missed} did not break their limit for certain."
    )
    return [text, "", *lines]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("deployment", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--reports", type=int, default=21)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--duration", type=float, default=4.0, help="seconds of each repeat")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--inject", action="append", metavar="PATH=VALUE")
    parser.add_argument("--minutes", type=float, default=11.0)
    parser.add_argument("--folder", type=Path, help="where every report is kept")
    parser.add_argument("--result", type=Path, help="Markdown file to write")
    method = Method(parser.parse_args(), [parse_gate(text) for text in GATES])
    began = time.monotonic()
    reports = unchanged(method, began + method.options.minutes * 60 * UNCHANGED_PART)
    if len(reports) < 3:
        sys.exit("too few reports were made in the time; give more --minutes")
    machine = reports[0].machine
    lines = [
        "# False alarms of bench compare",
        "",
        f"`{' '.join(['python', *sys.argv])}` on {datetime.date.today()}: {machine.cpu}, "
        f"{machine.cores} cores, load average {os.getloadavg()[0]:.1f}. {len(reports)} reports of "
        f"{method.options.repeats} repeats of {method.options.duration:g} s, "
        f"{method.options.users} users, {SERVERS} servers one after the other.",
        "",
        *alarms(reports, method.gates),
        "",
        *spreads(reports, method.gates),
        "",
        *caught(injected(method, reports[-1])),
        "",
        f"{(time.monotonic() - began) / 60:.1f} minutes.",
    ]
    print("\n".join(lines))
    if method.options.result:
        method.options.result.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
