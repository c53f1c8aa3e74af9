"""A window of time as tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from toolkit.gateway.watch import View
    from toolkit.gateway.watch.view import ClassView, ReplicaView, SourceView

_LOAD = ("model", "class", "wait", "run", "req/s", "in/s", "cached/s", "out/s", "refused/s")
_LATENCY = ("model", "class", "TTFT p50", "p95", "ITL p50", "p95", "queue p95", "in time")
_REPLICAS = (
    *("replica", "up", "slots", "tokens", "KV", "held", "hits", "drafts", "preempt", "restart"),
)
_BLANK = Text("")
_NAMES = ("model", "class", "replica")
_MODEL_WIDTH, _NAME_WIDTH = 6, 12
_LEGEND = "tokens: outstanding; held: KV reserved; hits: KV reused; drafts: accepted"


def render(view: View) -> RenderableType:
    """Everything in ``view``, widest table 80 columns."""
    parts: list[RenderableType] = [*_notes(view)]
    if view.classes:
        named = [(_names(view, each), each) for each in view.classes]
        parts.append(_table(_LOAD, [[*names, *_load(each)] for names, each in named]))
        parts += _refused(view)
        spoken_for = [(names, each) for names, each in named if each.request_class is not None]
        if spoken_for:
            parts.append(_BLANK)
            rows = [[*names, *_latency(each)] for names, each in spoken_for]
            parts.append(_table(_LATENCY, rows))
    if view.replicas:
        parts.append(_BLANK)
        parts.append(_table(_REPLICAS, [_replica(each) for each in view.replicas]))
        parts.append(Text(_LEGEND, style="dim"))
    parts += _accepted(view)
    if not view.sources:
        parts.append(Text("nothing runs"))
    elif not view.classes and not view.replicas:
        parts.append(Text("no figures of a model yet"))
    return Group(*parts)


def _notes(view: View) -> Iterator[Text]:
    """What is not as it should be, and what it all costs."""
    seen: set[str] = set()
    for each in view.sources:
        if each.status and each.status != "ready" and each.name not in seen:
            seen.add(each.name)
            yield Text(f"{each.name}: {each.status}", style="yellow")
        if not each.answers:
            yield Text(f"{each.name}: {each.url}: {each.error}", style="red")
        if each.restarted:
            yield Text(f"{each.name}: {each.url} has restarted", style="yellow")
    for each in view.sources:
        if each.cost_per_thousand_tokens is not None:
            yield Text(f"{each.name}: {_cost(each)} for a thousand tokens, of the last 5 minutes")


def _cost(source: SourceView) -> str:
    return f"{source.cost_per_thousand_tokens:.4g}"


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for at, column in enumerate(columns):
        if column in _NAMES:
            # Where the width is short, the model's name gives way first: it is seldom the news.
            least = _MODEL_WIDTH if column == "model" else _NAME_WIDTH
            longest = max((cell_len(row[at]) for row in rows), default=0)
            table.add_column(column, overflow="fold", min_width=min(least, longest))
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _names(view: View, each: ClassView) -> tuple[str, str]:
    """Model and class; the source too where several serve the same model."""
    sources = {other.source for other in view.classes if other.model == each.model}
    model = f"{each.model} @{each.source}" if len(sources) > 1 else each.model
    return model, each.request_class or "(engine)"


def _load(each: ClassView) -> list[str]:
    tokens = (each.prompt_tokens_per_s, each.cached_tokens_per_s, each.completion_tokens_per_s)
    refused = sum(each.refused_per_s.values()) if each.requests_per_s is not None else None
    rates = (each.requests_per_s, *tokens, None if each.request_class is None else refused)
    return [number(each.waiting), number(each.running), *map(number, rates)]


def _latency(each: ClassView) -> list[str]:
    times = (each.ttft_p50_s, each.ttft_p95_s, each.itl_p50_s, each.itl_p95_s, each.queue_p95_s)
    return [*map(seconds, times), share(each.in_time)]


def _refused(view: View) -> Iterator[Text]:
    for each in view.classes:
        reasons = _listed(each.refused_per_s)
        if reasons:
            name = f"{each.model} {each.request_class}"
            yield Text(f"refused, {name}: {reasons} a second", style="yellow")


def _accepted(view: View) -> Iterator[Text]:
    """What the gateway knows of speculation, where no engine tells by replica."""
    told = {each.model for each in view.replicas if each.acceptance_rate is not None}
    for each in view.classes:
        if each.acceptance_rate is not None and each.model not in told:
            name = f"{each.model} {each.request_class}"
            yield Text(f"drafts accepted, {name}: {share(each.acceptance_rate)}")


def _listed(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number(rate)}" for name, rate in sorted(rates.items()) if rate)


def _replica(each: ReplicaView) -> list[str]:
    slots = f"{number(each.running)}/{number(each.slots)}"
    preempted = number(each.preemptions_total)
    if each.preemptions:
        preempted = f"+{number(each.preemptions)} {preempted}"
    return [
        each.replica,
        "yes" if each.up else "NO",
        slots,
        number(each.outstanding_tokens),
        *(share(value) for value in (each.kv_use, each.kv_reserved)),
        *(share(value) for value in (each.kv_hit_rate, each.acceptance_rate)),
        preempted,
        "-" if each.restarts is None else str(each.restarts),
    ]


def number(value: float | None) -> str:
    """At most five characters up to 999 billions: ``0``, ``0.25``, ``12.5``, ``999``, ``12.3k``."""
    if value is None:
        return "-"
    unit = ""
    for larger in "kMG":
        if round(value) < 1000:
            break
        value, unit = value / 1000, larger
    digits = 2 if value < 10 else 1 if value < 100 else 0
    text = f"{value:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + unit


def seconds(value: float | None) -> str:
    """``740us``, ``12.5ms``, ``320ms``, ``1.25s``, ``80s``."""
    if value is None:
        return "-"
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if round(value * factor) < 1000:
            return f"{number(value * factor)}{unit}"
    return f"{number(value)}s"


def share(value: float | None) -> str:
    """As per cent; never rounded up to the whole, or down to nothing."""
    if value is None:
        return "-"
    text = f"{value:.0%}"
    if text == "100%" and value < 1:
        return f"{min(value, 0.999):.1%}"
    return "<1%" if text == "0%" and value > 0 else text
