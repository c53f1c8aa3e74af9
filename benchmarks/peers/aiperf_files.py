"""AIPerf's files: the requests it replays, and the figures it leaves behind.

Requests are given in its ``single_turn`` format, whose ``extra`` goes into the call's body.
Its summary (``profile_export_aiperf.json``) has an object for each metric with its unit and
percentiles. What corresponds to what, by AIPerf 0.13.0's own formulas (``aiperf.metrics.types``):

- ``output_token_throughput``: all output tokens over the time from the first request's start to
  the last response. The toolkit's is the same where a number of requests is measured.
- ``time_to_first_token``: from the request's start to the first response that has content.
- ``inter_token_latency``: (latency - time to first token) / (tokens - 1) of a request; the
  toolkit calls that TPOT.
- ``request_latency``: from the request's start to its last response.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.bench.vocabulary import Vocabulary

SUMMARY = "profile_export_aiperf.json"


@dataclass(frozen=True)
class Asked:
    """One request: a prompt, and how many tokens have to come back."""

    prompt: str
    tokens: int


@dataclass(frozen=True)
class Figures:
    """What both tools tell of a run; times in ms."""

    tokens_per_s: float
    ttft_p50: float
    tpot_p50: float
    e2e_p50: float
    requests: int
    output_tokens: int


def make_requests(vocabulary: Vocabulary, count: int, salt: str) -> list[Asked]:
    """Prompts of 64 to 192 tokens, answers of 32 to 96; the same for the same salt."""
    dice = random.Random(salt)
    return [
        Asked(vocabulary.make(dice.randint(64, 192), dice), dice.randint(32, 96))
        for _ in range(count)
    ]


def write_for_aiperf(asked: Sequence[Asked], path: Path) -> None:
    """Its dataset, which makes the bodies that the toolkit's own client sends."""
    with path.open("w") as out:
        for one in asked:
            extra = {"min_tokens": one.tokens, "temperature": 0.0}
            line = {"text": one.prompt, "output_length": one.tokens, "extra": extra}
            out.write(json.dumps(line) + "\n")


def write_for_toolkit(asked: Sequence[Asked], path: Path) -> None:
    """A prompts file of `toolkit bench` and the scenario beside it, which asks for each once."""
    with path.with_suffix(".jsonl").open("w") as out:
        for one in asked:
            out.write(json.dumps({"prompt": one.prompt, "max_tokens": one.tokens}) + "\n")
    workload = {"type": "file", "path": path.with_suffix(".jsonl").name}
    workload |= {"exact_output": True, "repeat": False}
    scenario = {
        "workload": workload,
        "stop": {"requests": len(asked), "warmup_requests": 0},
    }
    # JSON is YAML.
    path.write_text(json.dumps(scenario, indent=1))


def read_aiperf(summary: Mapping[str, Any]) -> Figures:
    """The figures of an AIPerf summary.

    Raises:
        KeyError: a metric is missing.
        ValueError: a metric is in another unit than expected.
    """
    return Figures(
        tokens_per_s=_metric(summary, "output_token_throughput", "avg", "tokens/sec"),
        ttft_p50=_metric(summary, "time_to_first_token", "p50", "ms"),
        tpot_p50=_metric(summary, "inter_token_latency", "p50", "ms"),
        e2e_p50=_metric(summary, "request_latency", "p50", "ms"),
        requests=round(_metric(summary, "request_count", "avg", "requests")),
        output_tokens=round(_metric(summary, "total_output_tokens", "avg", "tokens")),
    )


def read_toolkit(report: Mapping[str, Any]) -> Figures:
    """The same of a report of `toolkit bench --json` with one load."""
    point = report["points"][0]
    spread = point["distributions"]
    tokens = spread["output_tokens"]
    count = sum(repeat["completed"] for repeat in point["repeats"])
    return Figures(
        tokens_per_s=float(point["totals"]["output_throughput"]["value"]),
        ttft_p50=float(spread["ttft"]["stats"]["p50"]["value"]),
        tpot_p50=float(spread["tpot"]["stats"]["p50"]["value"]),
        e2e_p50=float(spread["e2e"]["stats"]["p50"]["value"]),
        requests=count,
        output_tokens=round(tokens["stats"]["mean"]["value"] * tokens["count"]),
    )


def _metric(summary: Mapping[str, Any], name: str, stat: str, unit: str) -> float:
    found = summary[name]
    if found["unit"] != unit:
        raise ValueError(f"AIPerf tells {name} in {found['unit']}, not in {unit}")
    return float(found[stat])
