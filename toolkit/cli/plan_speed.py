"""How ``toolkit plan`` shows times, loads, prices and calibrations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli.output import print_table

if TYPE_CHECKING:
    from toolkit.capacity.calibration import Calibration
    from toolkit.capacity.prices import Prices
    from toolkit.capacity.roofline import Balance
    from toolkit.capacity.search import Goal, Option
    from toolkit.capacity.serving import Estimate
    from toolkit.capacity.traffic import Traffic
    from toolkit.pipeline.sizing import Speed

_BAR = 20
_MOST_SHARE = 1.1
_WORST = 0.15
NOTHING = "No deployment keeps these targets; relax them, or name other GPUs."


def speed_json(speed: Speed | None) -> dict[str, Any] | None:
    """The estimates for programs."""
    if speed is None:
        return None
    return {
        "prompt_tokens": speed.traffic.prompt_tokens,
        "output_tokens": speed.traffic.output_tokens,
        "loads": [_estimate(each) for each in speed.estimates],
        "factors": speed.source,
        "efficiency": {k: v for k, v in speed.factors.as_json().items() if k != "source"},
        "prefill": _balance(speed.prefill),
        "decode": [_balance(each) for each in speed.decode],
        "speculation": _drafting_json(speed),
        "reuse": {"hit_rate": speed.traffic.hit_rate, "ttft_gain": speed.reuse}
        if speed.traffic.hit_rate
        else None,
    }


def _drafting_json(speed: Speed) -> dict[str, Any] | None:
    if not speed.drafting:
        return None
    return {
        "drafts": speed.traffic.drafts,
        "checked": speed.traffic.queries - 1,
        "acceptance": speed.traffic.acceptance,
        "tokens_per_step": speed.traffic.tokens_per_step,
        "gains": list(speed.drafting),
    }


def print_speed(speed: Speed) -> None:
    """One line a load."""
    traffic = speed.traffic
    rows = [
        (
            f"{each.running:.0f}",
            f"{each.output_tokens_per_s:.0f}",
            _ms(each.ttft_s),
            _ms(each.tpot_s),
            f"{each.rate:.2f}",
        )
        for each in speed.estimates
    ]
    typer.echo("")
    print_table(
        f"Estimated speed of one replica, prompts of {traffic.prompt_tokens:.0f} tokens and "
        f"answers of {traffic.output_tokens:.0f}",
        ("requests at once", "tokens/s", "TTFT ms", "TPOT ms", "requests/s"),
        rows,
        right="requests at once,tokens/s,TTFT ms,TPOT ms,requests/s",
    )
    for line in [*balance_lines(speed), *gain_lines(speed)]:
        typer.echo(line)


def balance_lines(speed: Speed) -> list[str]:
    """What is moved and computed, with which factors."""
    device, factors, prefill = speed.device, speed.factors, speed.prefill
    size = speed.traffic.prompt_tokens - speed.traffic.cached_tokens
    each = ", on each GPU" if speed.ways > 1 else ""
    lines = [
        f"Prefill of {size:.0f} tokens{each}: {prefill.operations / 1e12:.3g} TFLOP, "
        f"{prefill.weight_bytes / 1e9:.3g} GB of weights; {prefill.bound}-bound."
    ]
    for load, step in zip(speed.estimates, speed.decode, strict=True):
        lines.append(
            f"Decode step of {load.running:.0f}{each}: "
            f"{step.weight_bytes / 1e9:.3g} GB of weights, {step.kv_bytes / 1e9:.3g} GB of KV "
            f"cache, {step.operations / 1e12:.3g} TFLOP; {step.bound}-bound."
        )
    lines.append(
        f"Means, by a roofline: {factors.bandwidth:.2f} of {device.bandwidth / 1e9:.0f} GB/s, "
        f"{factors.compute:.2f} of {_rate(device.linear_rate)} TFLOP/s, and a step's "
        f"{factors.step_s * 1e3:.2g} ms + {factors.layer_s * 1e3:.2g} ms a layer + "
        f"{factors.row_s * 1e3:.2g} ms a request; factors {speed.source}."
    )
    return lines


def _rate(operations: float) -> str:
    rate = operations / 1e12
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


def _balance(each: Balance) -> dict[str, Any]:
    return {
        "weight_bytes": each.weight_bytes,
        "kv_bytes": each.kv_bytes,
        "operations": each.operations,
        "memory_ms": each.memory_s * 1000,
        "compute_ms": each.compute_s * 1000,
        "bound": each.bound,
    }


def gain_lines(speed: Speed) -> list[str]:
    """What speculation and reuse give, a sentence each."""
    traffic, lines = speed.traffic, []
    if speed.drafting:
        (few, low), (many, high) = (
            (speed.estimates[i].running, speed.drafting[i]) for i in (0, -1)
        )
        lines.append(
            f"Speculation: {_drafts(traffic)} accepted with {traffic.acceptance:.0%}, "
            f"make {traffic.tokens_per_step:.2f} tokens a step; with the drafts' cost, tokens come "
            f"{low:.2f} times as fast at {few:.0f} requests, {high:.2f} times at {many:.0f}."
        )
    if traffic.hit_rate:
        lines.append(
            f"KV reuse: with {traffic.hit_rate:.0%} of a prompt in the cache a lone request's "
            f"first token comes {speed.reuse:.2f} times sooner."
        )
    return lines


def _drafts(traffic: Traffic) -> str:
    if traffic.queries - 1 == traffic.drafts:
        return f"{traffic.drafts} drafts, each"
    return f"{traffic.queries - 1} drafts in a tree {traffic.drafts} deep, each level"


def options_json(options: Sequence[Option], goal: Goal, prices: Prices) -> dict[str, Any]:
    """The search for programs."""
    return {
        "rate": goal.rate,
        "prompt_tokens": goal.traffic.prompt_tokens,
        "output_tokens": goal.traffic.output_tokens,
        "slo_ttft_ms": None if math.isinf(goal.ttft_s) else goal.ttft_s * 1000,
        "slo_tpot_ms": None if math.isinf(goal.tpot_s) else goal.tpot_s * 1000,
        "utilisation": prices.utilisation,
        "options": [_option(each) for each in options],
    }


def print_options(options: Sequence[Option], goal: Goal, prices: Prices) -> None:
    """One line a GPU, cheapest first, with a bar of its cost."""
    if not options:
        typer.echo(NOTHING)
        return
    dearest = max(each.cost.hour for each in options)
    rows = [
        (
            each.gpu.name,
            f"{each.replicas} x {each.tensor}",
            f"{each.weights} / {each.kv_cache}",
            _ms(each.estimate.ttft_s),
            _ms(each.estimate.tpot_s),
            f"{each.estimate.running:.0f}",
            f"{each.cost.hour:.2f}",
            f"{each.cost.million:.3f}",
            "█" * max(1, round(_BAR * each.cost.hour / dearest)),
        )
        for each in options
    ]
    numbers = ("TTFT ms", "TPOT ms", "running", "$/h", "$/M tokens")
    print_table(
        f"Cheapest deployment on each GPU for {goal.rate:g} requests/s{_targets(goal)}",
        ("GPU", "replicas x tp", "weights / KV", *numbers, "cost"),
        rows,
        right=",".join(numbers),
    )
    for line in note_lines(options, prices):
        typer.echo(line)


def print_calibration(made: Calibration, file: Path, notes: Sequence[str]) -> None:
    """Measured against calibrated, and the factors."""
    rows = [
        (
            each.label,
            each.what,
            _ms(each.measured_s),
            _ms(each.predicted_s),
            f"{100 * each.error:+.1f}",
        )
        for each in made.residuals
    ]
    print_table(
        "Calibration",
        ("load", "what", "measured ms", "calibrated ms", "error %"),
        rows,
        right="measured ms,calibrated ms,error %",
    )
    factors = {k: v for k, v in made.factors.as_json().items() if k != "source"}
    print_table("", ("factor", "value"), [(k, f"{v:.4g}") for k, v in factors.items()])
    for note in [*notes, *_doubts(made)]:
        typer.echo(f"note: {note}")
    typer.echo(f"Kept in {file}; toolkit plan uses it for this processor and runtime.")


def _doubts(made: Calibration) -> Iterator[str]:
    """What the factors themselves say against the figures that they rest on."""
    shares = {"bandwidth": made.factors.bandwidth, "compute": made.factors.compute}
    over = [name for name, share in shares.items() if share > _MOST_SHARE]
    if over:
        yield (
            f"more {' and '.join(over)} was used than the processor is said to have: it was busy "
            "when it was measured, or is not the one that served. Estimates of this deployment "
            "hold, those of another one may not"
        )
    if made.worst > _WORST:
        yield (
            f"a load is missed by {made.worst:.0%}: the machine was not quiet, or prompts and "
            "answers were of very different lengths; measure longer"
        )


def calibration_json(made: Calibration, file: Path, notes: Sequence[str]) -> dict[str, Any]:
    """The calibration for programs."""
    return {
        "notes": [*notes, *_doubts(made)],
        "file": str(file),
        "factors": made.factors.as_json(),
        "worst_error": made.worst,
        "residuals": [
            {
                "load": each.label,
                "what": each.what,
                "measured_ms": each.measured_s * 1000,
                "calibrated_ms": each.predicted_s * 1000,
                "error": each.error,
            }
            for each in made.residuals
        ],
    }


def note_lines(options: Sequence[Option], prices: Prices) -> list[str]:
    """What the costs of a search rest on."""
    best, price = options[0], prices.of(options[0].gpu.name)
    lines = [
        f"$/M tokens: prompts and answers, at a mean load of {100 * prices.utilisation:.0f} % of "
        f"the peak, {best.cost.people:.2f} $/h of engineers counted."
    ]
    if best.cost.managed is not None and prices.managed is not None:
        ratio = best.cost.million / best.cost.managed
        lines.append(
            f"Managed ({prices.managed.name}): {best.cost.managed:.3f} $/M tokens; "
            f"{best.gpu.name} costs {ratio:.2f} times that."
        )
    if price and price.source:
        lines.append(
            f"{best.gpu.name}: {price.usd_per_hour} $/h ({price.source}, {price.date}); list "
            "prices change, --prices takes your own."
        )
    lines.append(
        "Times are estimated means: leave a margin, and measure with toolkit bench. Formats other "
        "than the file's cost accuracy: toolkit quantize measures how much (--keep-formats)."
    )
    return lines


def _estimate(each: Estimate) -> dict[str, float]:
    return {
        "running": each.running,
        "requests_per_s": each.rate,
        "ttft_ms": each.ttft_s * 1000,
        "tpot_ms": each.tpot_s * 1000,
        "output_tokens_per_s": each.output_tokens_per_s,
    }


def _option(each: Option) -> dict[str, Any]:
    return {
        "gpu": each.gpu.name,
        "gpus": each.gpus,
        "replicas": each.replicas,
        "tensor": each.tensor,
        "weights": each.weights,
        "kv_cache": each.kv_cache,
        "replica_at_peak": _estimate(each.estimate),
        "replica_at_most": _estimate(each.most),
        "kv_tokens": each.memory.kv_tokens,
        "usd_per_hour": each.cost.hour,
        "usd_per_hour_gpus": each.cost.gpus,
        "usd_per_million_tokens": each.cost.million,
        "usd_per_million_tokens_managed": each.cost.managed,
    }


def _targets(goal: Goal) -> str:
    both = (("TTFT", goal.ttft_s), ("TPOT", goal.tpot_s))
    said = [f"{name} {_ms(limit)} ms" for name, limit in both if not math.isinf(limit)]
    return f" within {' and '.join(said)}" if said else ""


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}" if seconds >= 0.1 else f"{seconds * 1000:.1f}"
