"""From the families of a gateway and of a Triton to typed figures; either may be missing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from toolkit.gateway.watch.histogram import Histogram
from toolkit.gateway.watch.reading import (
    ClassReading,
    Counts,
    EngineReading,
    Figures,
    ReplicaReading,
)
from toolkit.serving.metrics import GENERAL, KV_BLOCKS, REQUESTS, Load, Metrics

_GATEWAY = "toolkit_gateway_"
_ENGINE = "toolkit_llm_"
_BY_CLASS = ("model", "request_class")
_BY_REPLICA = ("model", "replica")
_COUNTERS = (
    ("requests", "outcome"),
    ("tokens", "kind"),
    ("refused", "reason"),
    ("ttft_target", "met"),
    ("draft_tokens", "kind"),
)
_LATENCIES = ("ttft", "itl", "queue")
_NONE: Counts = {}


def read(metrics: Metrics, model: str = "") -> Figures:
    """Everything known in one scrape.

    Args:
        metrics: The samples.
        model: What all engine families are about, whatever their label says: NVIDIA's own
            backend names the Triton model, which is the same in every deployment.
    """
    table = _Table(metrics)
    cost = table.sums(f"{_GATEWAY}cost_per_thousand_tokens")
    return Figures(
        classes=_classes(table),
        replicas=_replicas(table),
        engines=_engines(metrics, table, model),
        cost=cost.get(()),
        born=table.born(),
    )


class _Table:
    """The samples by family."""

    def __init__(self, metrics: Metrics) -> None:
        self._rows: defaultdict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for sample in metrics.samples:
            if not math.isnan(sample.value):
                self._rows[sample.family].append((dict(sample.labels), sample.value))

    def rows(self, family: str) -> list[tuple[dict[str, str], float]]:
        return self._rows.get(family, [])

    def sums(self, family: str, *by: str) -> dict[tuple[str, ...], float]:
        """Sums of a family by some of its labels."""
        found: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for labels, value in self.rows(family):
            found[tuple(labels.get(name, "") for name in by)] += value
        return dict(found)

    def counts(self, family: str, label: str, *by: str) -> dict[tuple[str, ...], Counts]:
        """For each combination of ``by``, the family by ``label``."""
        found: defaultdict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
        for (*key, kind), value in self.sums(family, *by, label).items():
            found[tuple(key)][kind] = value
        return dict(found)

    def histograms(self, family: str) -> dict[tuple[str, ...], Histogram]:
        """Histograms by model and class."""
        found = {}
        for key, counts in self.counts(f"{family}_bucket", "le", *_BY_CLASS).items():
            buckets = sorted((_bound(le), count) for le, count in counts.items())
            bounds, heights = zip(*buckets, strict=True)
            found[key] = Histogram(bounds, heights)
        return found

    def born(self) -> float | None:
        """When the gateway's oldest counter was made."""
        made = [
            value
            for family, rows in self._rows.items()
            if family.startswith(_GATEWAY) and family.endswith("_created")
            for _, value in rows
        ]
        return min(made, default=None)


def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


def _classes(table: _Table) -> dict[tuple[str, str], ClassReading]:
    waiting = table.sums(f"{_GATEWAY}queued", *_BY_CLASS)
    running = table.sums(f"{_GATEWAY}running", *_BY_CLASS)
    counters = [
        table.counts(f"{_GATEWAY}{name}_total", label, *_BY_CLASS) for name, label in _COUNTERS
    ]
    latencies = [table.histograms(f"{_GATEWAY}{name}_seconds") for name in _LATENCIES]
    parts: list[Mapping[tuple[str, ...], object]] = [waiting, running, *counters, *latencies]
    found = {}
    for key in sorted({key for part in parts for key in part}):
        model, name = key
        ended, tokens, refused, targets, drafts = (each.get(key, _NONE) for each in counters)
        ttft, itl, queue = (each.get(key) for each in latencies)
        found[model, name] = ClassReading(
            waiting=waiting.get(key, 0.0),
            running=running.get(key, 0.0),
            ended=ended,
            tokens=tokens,
            refused=refused,
            targets=targets,
            drafts=drafts,
            ttft=ttft,
            itl=itl,
            queue=queue,
        )
    return found


def _replicas(table: _Table) -> dict[tuple[str, str], ReplicaReading]:
    running = table.sums(f"{_GATEWAY}running", *_BY_REPLICA)
    names = ("slots", "outstanding_tokens", "kv_tokens", "kv_reserved_tokens")
    gauges = [table.sums(f"{_GATEWAY}replica_{name}", *_BY_REPLICA) for name in names]
    found = {}
    for key, up in table.sums(f"{_GATEWAY}replica_up", *_BY_REPLICA).items():
        model, replica = key
        values = (gauge.get(key) for gauge in gauges)
        found[model, replica] = ReplicaReading(up > 0, running.get(key, 0.0), *values)
    return found


def _engines(metrics: Metrics, table: _Table, model: str) -> dict[str, EngineReading]:
    kinds = {"requests": "finish_reason", "tokens": "kind", "kv_cache_blocks": "kind"}
    families = [f"{_ENGINE}{name}_total" for name in (*kinds, "preemptions")]
    families += [REQUESTS, KV_BLOCKS, GENERAL]
    models = sorted(
        {labels.get("model", "") for each in families for labels, _ in table.rows(each)}
    )
    if model:
        return {model: _engine(metrics, table)} if models else {}
    return {name: _engine(*_only(metrics, name)) for name in models}


def _only(metrics: Metrics, model: str) -> tuple[Metrics, _Table]:
    chosen = Metrics(each for each in metrics.samples if each.label("model") == model)
    return chosen, _Table(chosen)


def _engine(metrics: Metrics, table: _Table) -> EngineReading:
    load = Load.of(metrics)

    def counts(name: str, label: str = "kind") -> Counts:
        return table.counts(f"{_ENGINE}{name}_total", label).get((), _NONE)

    return EngineReading(
        running=load.running,
        waiting=load.waiting,
        slots=metrics.value(REQUESTS, request_type="max"),
        kv_use=load.kv_cache_use,
        steps=load.iterations,
        ended=counts("requests", "finish_reason"),
        tokens=counts("tokens"),
        blocks=counts("kv_cache_blocks"),
        preemptions=counts("preemptions"),
    )
