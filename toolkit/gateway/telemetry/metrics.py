"""Prometheus metrics of the gateway, by model and class; all names begin ``toolkit_gateway_``.

Latencies count from when a request was queued, so they are what a client sees without its
network: TTFT to the first text, ITL between pieces of text, E2E to the last.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from toolkit.gateway.scheduling import Snapshot
from toolkit.gateway.telemetry.observer import Observer
from toolkit.gateway.work import Final, GatewayError, Work
from toolkit.spec.gateway import RequestClass

_PREFIX = "toolkit_gateway_"
_SECONDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0),
)
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12)
_BY_CLASS = ("model", "request_class")
_COST_WINDOW = 300.0


class GatewayMetrics(Observer):
    """Counts what it observes; :meth:`render` is what ``/metrics`` answers.

    Args:
        classes: The request classes of each model, for their targets.
        snapshots: The present state of each model's scheduler.
        cost_per_hour: What the machine costs an hour.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        classes: Mapping[str, Mapping[str, RequestClass]],
        snapshots: Callable[[], Mapping[str, Snapshot]],
        *,
        cost_per_hour: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._classes = classes
        self._registry = CollectorRegistry()
        self._cost = _Cost(cost_per_hour, clock)
        self._registry.register(_State(snapshots, self._cost))
        histogram, counter = self._histogram, self._counter
        self._queue = histogram("queue_seconds", "Wait for a replica", _SECONDS)
        self._ttft = histogram("ttft_seconds", "Time to first token", _SECONDS)
        self._itl = histogram("itl_seconds", "Time between pieces of text", _GAPS)
        self._e2e = histogram("e2e_seconds", "Time to the last token", _SECONDS)
        self._tokens = counter("tokens", "Tokens of finished requests", "kind")
        self._drafts = counter("draft_tokens", "Draft tokens by what became of them", "kind")
        self._requests = counter("requests", "Requests that have ended, by outcome", "outcome")
        self._refused = counter("refused", "Requests refused before they waited", "reason")
        self._targets = counter("ttft_target", "First tokens by whether in time", "met")
        self._retries = counter("retries", "Requests given to another replica", "replica")
        self._ejections = Counter(
            f"{_PREFIX}ejections",
            "Times that a replica was taken out",
            ("model", "replica"),
            registry=self._registry,
        )

    def render(self) -> bytes:
        """All families in Prometheus' text format."""
        return bytes(generate_latest(self._registry))

    def refused(self, work: Work, reason: str) -> None:
        self._refused.labels(work.model, work.request_class, reason).inc()

    def dispatched(self, work: Work, replica: str, waited_s: float) -> None:
        self._queue.labels(work.model, work.request_class).observe(waited_s)

    def first_token(self, work: Work, replica: str, ttft_s: float) -> None:
        self._ttft.labels(work.model, work.request_class).observe(ttft_s)
        target = self._classes[work.model][work.request_class].ttft_ms
        if target is not None:
            met = "true" if ttft_s * 1000 <= target else "false"
            self._targets.labels(work.model, work.request_class, met).inc()

    def piece(self, work: Work, gap_s: float) -> None:
        self._itl.labels(work.model, work.request_class).observe(gap_s)

    def finished(self, work: Work, replica: str, final: Final, e2e_s: float) -> None:
        by_class = (work.model, work.request_class)
        self._e2e.labels(*by_class).observe(e2e_s)
        self._requests.labels(*by_class, final.finish_reason).inc()
        usage = final.usage
        self._tokens.labels(*by_class, "prompt").inc(usage.prompt)
        self._tokens.labels(*by_class, "cached").inc(usage.cached or 0)
        self._tokens.labels(*by_class, "completion").inc(usage.completion)
        self._drafts.labels(*by_class, "proposed").inc(usage.drafted)
        self._drafts.labels(*by_class, "accepted").inc(usage.accepted)
        self._cost.add(usage.prompt + usage.completion)

    def failed(self, work: Work, error: GatewayError) -> None:
        outcome = error.code or error.kind
        self._requests.labels(work.model, work.request_class, outcome).inc()

    def withdrawn(self, work: Work) -> None:
        self._requests.labels(work.model, work.request_class, "withdrawn").inc()

    def retried(self, work: Work, replica: str) -> None:
        self._retries.labels(work.model, work.request_class, replica).inc()

    def replica_changed(self, replica: str, model: str, up: bool, why: str) -> None:
        if not up:
            self._ejections.labels(model, replica).inc()

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"{_PREFIX}{name}", text, _BY_CLASS, buckets=buckets, registry=self._registry
        )

    def _counter(self, name: str, text: str, label: str) -> Counter:
        return Counter(f"{_PREFIX}{name}", text, (*_BY_CLASS, label), registry=self._registry)


class _Cost:
    """Tokens of the last minutes, and what each thousand of them cost."""

    def __init__(self, per_hour: float | None, clock: Callable[[], float]) -> None:
        self._per_hour = per_hour
        self._clock = clock
        self._started = clock()
        self._tokens: deque[tuple[float, int]] = deque()
        self._sum = 0

    def add(self, tokens: int) -> None:
        if self._per_hour is not None:
            self._tokens.append((self._clock(), tokens))
            self._sum += tokens
            self._forget()

    def per_thousand(self) -> float | None:
        """None without a price, or without a token in the window."""
        self._forget()
        if self._per_hour is None or not self._sum:
            return None
        window = min(_COST_WINDOW, max(1.0, self._clock() - self._started))
        return self._per_hour / 3600 * window / self._sum * 1000

    def _forget(self) -> None:
        oldest = self._clock() - _COST_WINDOW
        while self._tokens and self._tokens[0][0] < oldest:
            self._sum -= self._tokens.popleft()[1]


class _State(Collector):
    """Gauges, read from the schedulers when they are asked for."""

    def __init__(self, snapshots: Callable[[], Mapping[str, Snapshot]], cost: _Cost) -> None:
        self._snapshots = snapshots
        self._cost = cost

    def collect(self) -> Iterator[Metric]:
        queued = _gauge("queued", "Requests that wait", *_BY_CLASS)
        running = _gauge("running", "Requests that run", "model", "replica", "request_class")
        by_replica = {
            "replica_up": "1 while the replica takes work",
            "replica_slots": "Requests that it runs at once",
            "replica_outstanding_tokens": "Tokens that it has still to read and write",
            "replica_kv_tokens": "Tokens that its KV cache holds",
            "replica_kv_reserved_tokens": "Tokens that its running requests may come to hold",
        }
        gauges = {name: _gauge(name, text, "model", "replica") for name, text in by_replica.items()}
        for snapshot in self._snapshots().values():
            for model in snapshot.models:
                for name, count in model.queued.items():
                    queued.add_metric([model.model, name], count)
            for one in snapshot.replicas:
                for name, count in one.running.items():
                    running.add_metric([one.model, one.id, name], count)
                values = (one.up, one.slots, one.outstanding_tokens, one.kv_tokens, one.kv_reserved)
                for gauge, value in zip(gauges.values(), values, strict=True):
                    gauge.add_metric([one.model, one.id], float(value))
        yield from (queued, running, *gauges.values())
        cost = self._cost.per_thousand()
        if cost is not None:
            family = _gauge("cost_per_thousand_tokens", "Of the last five minutes")
            family.add_metric([], cost)
            yield family


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_PREFIX}{name}", text, labels=labels)
