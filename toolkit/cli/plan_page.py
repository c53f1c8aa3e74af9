"""``toolkit plan --html FILE``: memory, the frontier and the costs as one page of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import EnvironmentError_

if TYPE_CHECKING:
    from toolkit.bench.svg import Line
    from toolkit.capacity.host import HostPlan
    from toolkit.capacity.plan import MemoryPlan
    from toolkit.capacity.prices import Prices
    from toolkit.capacity.search import Goal, Option
    from toolkit.capacity.serving import Estimate
    from toolkit.capacity.traffic import Traffic
    from toolkit.pipeline.planning import Plan
    from toolkit.pipeline.sizing import Speed

_GIB = 2**30
_MOST_LINES = 8
"""Colours that can be told apart."""

_STYLE = """
.rows{display:grid;grid-template-columns:max-content 1fr max-content;gap:7px 12px;
align-items:center;font-size:14px}
.rows .bar{display:flex;height:17px;border-radius:4px;overflow:hidden;background:var(--shade)}
.rows .bar i{display:block;height:100%}
.wide{grid-column:1/-1}.rows span:nth-child(3n){font-variant-numeric:tabular-nums}
"""


def plan_page(
    plan: Plan, others: Sequence[MemoryPlan], speed: Speed | None, sentences: Sequence[str]
) -> str:
    """The page of one deployment: its memory, on other GPUs too, and its frontier."""
    own = [("this machine" if plan.gpu is None else plan.gpu, plan.memory)] if plan.memory else []
    memories = own + [(each.gpu.name, each) for each in others if each.gpu.name != plan.gpu]
    figures = [_figure("Memory of the fullest GPU", _memory_rows(memories), wide=True)]
    if speed is not None:
        figures += _frontiers([(plan.gpu or "this machine", speed.curve)], speed.traffic)
    formats = f"{plan.resolved.weights.name} weights, {plan.resolved.kv_cache.name} KV cache"
    lead = f"{plan.runtime} runtime, {formats}"
    return _page(f"Plan of {plan.deployment.name}", lead, figures, [*sentences, *plan.notes])


def search_page(
    name: str, options: Sequence[Option], goal: Goal, prices: Prices, sentences: Sequence[str]
) -> str:
    """The page of a search: what each GPU's cheapest deployment costs, holds and reaches."""
    memories = [(_named(each), each.memory) for each in options]
    curves = [(_named(each), _curve(each, goal.traffic)) for each in options[:_MOST_LINES]]
    figures = [
        _figure("Cost an hour", _cost_rows(options), wide=True),
        _figure("Cost of a million tokens, prompts and answers", _million_rows(options, prices)),
        _figure("Memory of the fullest GPU", _memory_rows(memories)),
        *_frontiers(curves, goal.traffic, goal),
    ]
    lead = f"Cheapest deployment on each GPU for {goal.rate:g} requests a second at the peak"
    lead += _targets(goal)
    if len(options) > _MOST_LINES:
        lead += f"; the curves are those of the {_MOST_LINES} cheapest"
    return _page(f"Plan of {name}", lead, figures, sentences)


def write_page(path: Path, page: str) -> None:
    """Write it.

    Raises:
        EnvironmentError_: the file cannot be written.
    """
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise EnvironmentError_(f"cannot be written: {error.strerror}", where=str(path)) from error


def _page(title: str, lead: str, figures: Sequence[str], sentences: Sequence[str]) -> str:
    from toolkit.bench.style import STYLE

    notes = "".join(f"<p class='small'>{escape(each)}</p>" for each in sentences)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{_STYLE}</style></head><body><main>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
        f'<div class="plots">{"".join(figures)}</div>{notes}</main></body></html>\n'
    )


def _figure(title: str, inside: str, *, wide: bool = False) -> str:
    if not inside:
        return ""
    kind = ' class="wide"' if wide else ""
    return f"<figure{kind}><figcaption>{escape(title)}</figcaption>{inside}</figure>"


def _memory_rows(memories: Sequence[tuple[str, MemoryPlan | HostPlan]]) -> str:
    """A bar for each: what is used of it, against the largest memory of them."""
    if not memories:
        return ""
    stacks = [(name, _parts(memory), _whole(memory)) for name, memory in memories]
    # Terms by their names, so that one colour means one thing in all rows.
    names = list(dict.fromkeys(term for _, parts, _ in stacks for term, _ in parts))
    most = max(whole for _, _, whole in stacks)
    rows = [
        _row(
            name,
            [(names.index(term), 100 * size / most, f"{term} {size / _GIB:.2f} GiB")
             for term, size in parts],
            f"{sum(size for _, size in parts) / _GIB:.1f} of {whole / _GIB:.1f} GiB",
        )
        for name, parts, whole in stacks
    ]  # fmt: skip
    return f'<div class="rows">{"".join(rows)}</div>{_legend(names)}'


def _parts(memory: MemoryPlan | HostPlan) -> list[tuple[str, int]]:
    found = [(line.name, line.bytes) for line in memory.fixed]
    return [*found, ("KV cache", max(memory.pool, 0))]


def _whole(memory: MemoryPlan | HostPlan) -> int:
    from toolkit.capacity.host import HostPlan

    return memory.available if isinstance(memory, HostPlan) else memory.gpu.memory


def _cost_rows(options: Sequence[Option]) -> str:
    if not options:
        return ""
    most = max(each.cost.hour for each in options) or 1.0
    rows = [
        _row(
            f"{_named(each)}, {each.weights} / {each.kv_cache}",
            [
                (0, 100 * each.cost.gpus / most, f"GPUs {each.cost.gpus:.2f} $/h"),
                (4, 100 * each.cost.people / most, f"engineers {each.cost.people:.2f} $/h"),
            ],
            f"{each.cost.hour:.2f} $/h",
        )
        for each in options
    ]
    keys = _key(0, "GPUs") + _key(4, "engineers")
    return f'<div class="rows">{"".join(rows)}</div><p class="legend">{keys}</p>'


def _million_rows(options: Sequence[Option], prices: Prices) -> str:
    if not options:
        return ""
    bars = [(_named(each), each.cost.million, 0) for each in options]
    managed = options[0].cost.managed
    if managed is not None and prices.managed is not None:
        bars.append((f"managed: {prices.managed.name}", managed, 1))
    most = max(cost for _, cost, _ in bars) or 1.0
    rows = [
        _row(name, [(colour, 100 * cost / most, f"{cost:.3f} $")], f"{cost:.3f} $")
        for name, cost, colour in bars
    ]
    return f'<div class="rows">{"".join(rows)}</div>'


def _row(name: str, parts: Sequence[tuple[int, float, str]], said: str) -> str:
    inside = "".join(
        f'<i class="c{colour % 8}" style="width:{share:.2f}%" title="{escape(title)}"></i>'
        for colour, share, title in parts
    )
    return f'<span>{escape(name)}</span><div class="bar">{inside}</div><span>{escape(said)}</span>'


def _legend(names: Sequence[str]) -> str:
    keys = "".join(_key(colour, name) for colour, name in enumerate(names))
    return f'<p class="legend">{keys}</p>'


def _key(colour: int, name: str) -> str:
    return f'<span><i class="key c{colour % 8}"></i>{escape(name)}</span>'


def _frontiers(
    curves: Sequence[tuple[str, Sequence[Estimate]]], traffic: Traffic, goal: Goal | None = None
) -> Iterator[str]:
    """Tokens a second of one replica over each latency, more requests at once to the right."""
    from toolkit.bench.svg import Line, line_chart

    sizes = f"prompts of {traffic.prompt_tokens:.0f}, answers of {traffic.output_tokens:.0f} tokens"

    def chart(title: str, lines: list[Line], label: str) -> str:
        drawn = [line for line in lines if line.points]
        plot = line_chart(drawn, label, "output tokens/s of a replica", log_x=True)
        return _figure(f"{title}: {sizes}", plot)

    within = [(name, _within(curve, goal)) for name, curve in curves]
    tpot = [Line(n, [(1000 * e.tpot_s, e.output_tokens_per_s) for e in c]) for n, c in within]
    ttft = [Line(n, [(1000 * e.ttft_s, e.output_tokens_per_s) for e in c]) for n, c in within]
    yield chart("Throughput and time between tokens", tpot, "milliseconds between tokens")
    yield chart("Throughput and time to the first token", ttft, "milliseconds to the first token")
    batch = [Line(n, [(e.running, e.output_tokens_per_s) for e in c]) for n, c in within]
    yield chart("Throughput by requests at once", batch, "requests at once")


def _within(curve: Sequence[Estimate], goal: Goal | None) -> list[Estimate]:
    """Loads that have a latency at all, and keep the targets if there are some."""
    first = math.inf if goal is None else goal.ttft_s
    between = math.inf if goal is None else goal.tpot_s
    return [
        each
        for each in curve
        if math.isfinite(each.ttft_s) and each.ttft_s <= first and each.tpot_s <= between
    ]


def _curve(option: Option, traffic: Traffic) -> Sequence[Estimate]:
    from toolkit.capacity.serving import frontier

    return frontier(option.replica, traffic)


def _named(option: Option) -> str:
    return f"{option.gpu.name}, {option.replicas} x tp {option.tensor}"


def _targets(goal: Goal) -> str:
    both = (("TTFT", goal.ttft_s), ("TPOT", goal.tpot_s))
    said = [f"{name} {limit * 1000:g} ms" for name, limit in both if not math.isinf(limit)]
    return f", within {' and '.join(said)}" if said else ""
