"""Alert rules, each with the series that must set it off and those that must not.

Burn rates over two windows follow the Google SRE workbook, chapter "Alerting on SLOs": 14.4
times the error budget over an hour uses 2 % of a month's, 6 times over six hours 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Severity = Literal["page", "ticket"]

_GOOD = "stop|length|deadline|withdrawn|invalid_request_error"
"""Outcomes that keep the promise; a deadline and a mistake are the client's own."""
_FAST = (14.4, "1h", "5m")
_SLOW = (6.0, "6h", "30m")
_ENGINE = 'general_type="iteration_counter"'


@dataclass(frozen=True)
class Series:
    """One input of a rule's test, in promtool's notation (``0+1x60``: from 0 by 1, 60 times)."""

    name: str
    values: str


@dataclass(frozen=True)
class Alert:
    """One rule.

    Attributes:
        expression: PromQL.
        wait: How long it has to hold.
        says: Summary; ``{{ $labels.… }}`` is filled in by Prometheus.
        mend: What to do about it.
        labels: Labels that the alert carries when ``bad`` sets it off.
        bad: Series, one value a minute, that set it off at ``at``.
        good: Series that must not.
        at: When the test looks.
    """

    name: str
    severity: Severity
    expression: str
    wait: str
    says: str
    mend: str
    labels: tuple[tuple[str, str], ...]
    bad: tuple[Series, ...]
    good: tuple[Series, ...]
    at: str = "70m"


def alerts(objective: float) -> tuple[Alert, ...]:
    """All rules, for a share of requests (0 to 1) that has to be good."""
    return (*_burning(objective), *_loaded(), *_lost(), *_unsteady())


def _burning(objective: float) -> Iterator[Alert]:
    missed = 'toolkit_gateway_ttft_target_total{met="false"}'
    failed = f'toolkit_gateway_requests_total{{outcome!~"{_GOOD}"}}'
    kinds = (
        ("Ttft", missed, "toolkit_gateway_ttft_target_total", "first tokens come too late"),
        ("Error", failed, "toolkit_gateway_requests_total", "requests fail"),
    )
    speeds: tuple[tuple[str, tuple[float, str, str], Severity], ...] = (
        ("Fast", _FAST, "page"),
        ("Slow", _SLOW, "ticket"),
    )
    for kind, bad, every, what in kinds:
        for speed, (factor, long, short), severity in speeds:
            limit = round(factor * (1 - objective), 6)
            yield Alert(
                f"{kind}BudgetBurns{speed}",
                severity,
                f"{_share(bad, every, long)} > {limit} and {_share(bad, every, short)} > {limit}",
                "2m",
                f"{{{{ $labels.model }}}}, {{{{ $labels.request_class }}}}: {what}, "
                f"{factor:g} times as many as the objective of {objective:.3%} allows",
                "toolkit top shows where the time goes; more replicas, or lower limits for the "
                "other classes.",
                (("model", "chat"), ("request_class", "interactive")),
                _burning_series(kind, 9),
                _burning_series(kind, 0),
                at="6h30m",
            )


def _share(bad: str, every: str, window: str) -> str:
    by = "sum by (model, request_class)"
    return f"{by} (rate({bad}[{window}])) / {by} (rate({every}[{window}]))"


def _burning_series(kind: str, bad: int) -> tuple[Series, ...]:
    good = 10 - bad
    labels = 'model="chat",request_class="interactive"'
    if kind == "Ttft":
        name = "toolkit_gateway_ttft_target_total"
        return (
            Series(f'{name}{{{labels},met="true"}}', f"0+{good}x400"),
            Series(f'{name}{{{labels},met="false"}}', f"0+{bad}x400"),
        )
    name = "toolkit_gateway_requests_total"
    return (
        Series(f'{name}{{{labels},outcome="stop"}}', f"0+{good}x400"),
        Series(f'{name}{{{labels},outcome="invalid_request_error"}}', "0+9x400"),
        Series(f'{name}{{{labels},outcome="replica_failed"}}', f"0+{9 * bad}x400"),
    )


def _loaded() -> Iterator[Alert]:
    refused = 'toolkit_gateway_refused_total{model="chat",request_class="batch",reason="too_late"}'
    yield Alert(
        "GatewaySaturated",
        "ticket",
        "sum by (model, request_class) "
        '(rate(toolkit_gateway_refused_total{reason=~"queue_full|too_late"}[5m])) > 0',
        "10m",
        "{{ $labels.model }}, {{ $labels.request_class }}: requests are refused for want of room",
        "Add a replica (gateway.replicas), or lower the load; toolkit plan says what fits.",
        (("model", "chat"), ("request_class", "batch")),
        (Series(refused, "0+3x80"),),
        (Series(refused, "7x80"),),
    )
    block = 'nv_trt_llm_kv_cache_block_metrics{model="chat",instance="a",kv_cache_block_type='
    yield Alert(
        "KvCachePressure",
        "ticket",
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used"} / ignoring '
        '(kv_cache_block_type) nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max"} > 0.95',
        "10m",
        "{{ $labels.model }} on {{ $labels.instance }}: the KV cache is nearly full",
        "Requests will wait or be preempted: an fp8 KV cache, a shorter max_seq_len, or a replica.",
        (("instance", "a"), ("model", "chat")),
        (Series(f'{block}"used"}}', "99x80"), Series(f'{block}"max"}}', "100x80")),
        (Series(f'{block}"used"}}', "80x80"), Series(f'{block}"max"}}', "100x80")),
    )
    drafts = 'toolkit_gateway_draft_tokens_total{model="chat",request_class="batch",kind='
    yield Alert(
        "SpeculationDoesNotPay",
        "ticket",
        'sum by (model) (rate(toolkit_gateway_draft_tokens_total{kind="accepted"}[30m])) / '
        'sum by (model) (rate(toolkit_gateway_draft_tokens_total{kind="proposed"}[30m])) < 0.1',
        "30m",
        "{{ $labels.model }}: fewer than one draft token in ten is accepted",
        "A better draft model, a smaller max_draft_len, or no speculation.",
        (("model", "chat"),),
        (Series(f'{drafts}"proposed"}}', "0+100x80"), Series(f'{drafts}"accepted"}}', "0+4x80")),
        (Series(f'{drafts}"proposed"}}', "0+100x80"), Series(f'{drafts}"accepted"}}', "0+40x80")),
    )


def _lost() -> Iterator[Alert]:
    target = 'up{job="toolkit-gateway",instance="a:9000"}'
    yield Alert(
        "GatewayDown",
        "page",
        'up{job="toolkit-gateway"} == 0',
        "1m",
        "the gateway at {{ $labels.instance }} does not answer",
        "toolkit status and toolkit logs on its machine say why; no other rule sees it meanwhile.",
        (("instance", "a:9000"), ("job", "toolkit-gateway")),
        (Series(target, "1x10 0x70"),),
        (Series(target, "0x1 1x80"),),
    )
    up = 'toolkit_gateway_replica_up{model="chat",replica="a:8001"}'
    yield Alert(
        "ReplicaDown",
        "page",
        "toolkit_gateway_replica_up == 0",
        "2m",
        "{{ $labels.model }}: the replica {{ $labels.replica }} takes no work",
        "toolkit status and toolkit logs on its machine say why.",
        (("model", "chat"), ("replica", "a:8001")),
        (Series(up, "1x10 0x70"),),
        (Series(up, "0x1 1x80"),),
    )
    kv = 'toolkit_gateway_replica_kv_tokens{model="chat",replica="a:8001"}'
    yield Alert(
        "RestartedAfterOutOfMemory",
        "ticket",
        "toolkit_gateway_replica_kv_tokens > 0 "
        "< max_over_time(toolkit_gateway_replica_kv_tokens[1d])",
        "1m",
        "{{ $labels.model }}: {{ $labels.replica }} came back with a smaller KV cache",
        "It ran out of memory: lower max_batch_size, max_seq_len or free_memory_fraction.",
        (("model", "chat"), ("replica", "a:8001")),
        (Series(kv, "65536x30 45875x50"),),
        (Series(kv, "65536x30 0x5 65536x45"),),  # 0: it has not told yet
        at="33m",
    )


def _unsteady() -> Iterator[Alert]:
    ejections = 'toolkit_gateway_ejections_total{model="chat",replica="a:8001"}'
    yield Alert(
        "ReplicaFlaps",
        "page",
        "increase(toolkit_gateway_ejections_total[30m]) >= 3",
        "0m",
        "{{ $labels.model }}: {{ $labels.replica }} was taken out several times in half an hour",
        "toolkit status lists its restarts with their reasons.",
        (("model", "chat"), ("replica", "a:8001")),
        (Series(ejections, "0x40 0+1x40"),),
        (Series(ejections, "0x40 1x40"),),
    )
    steps = f'nv_trt_llm_general_metrics{{model="chat",instance="a",{_ENGINE}}}'
    active = 'nv_trt_llm_request_metrics{model="chat",instance="a",request_type="active"}'
    yield Alert(
        "EngineStuck",
        "page",
        f"delta(nv_trt_llm_general_metrics{{{_ENGINE}}}[2m]) == 0 and on (model, instance) "
        'nv_trt_llm_request_metrics{request_type="active"} > 0',
        "2m",
        "{{ $labels.model }} on {{ $labels.instance }}: requests run and the engine does not step",
        "The supervisor restarts it after two minutes; restart it by hand if it has none.",
        (("general_type", "iteration_counter"), ("instance", "a"), ("model", "chat")),
        (Series(steps, "500x80"), Series(active, "4x80")),
        (Series(steps, "500+3x80"), Series(active, "4x80")),
    )
