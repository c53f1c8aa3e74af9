"""What ``/metrics`` of the gateway says about requests that it has seen."""

from __future__ import annotations

import pytest

from toolkit.gateway.scheduling import ModelState, ReplicaState, Snapshot
from toolkit.gateway.telemetry.metrics import GatewayMetrics
from toolkit.gateway.work import Final, GatewayError, Sampling, Usage, Work
from toolkit.serving.metrics import Metrics, parse
from toolkit.spec.gateway import RequestClass

CLASSES = {"chat": {"interactive": RequestClass(ttft_ms=500), "batch": RequestClass()}}
STATE = Snapshot(
    models=(ModelState("chat", {"batch": 7}, {}),),
    replicas=(ReplicaState("r0", "chat", True, 8, 3, {"batch": 5}, 900, 4096, 1024),),
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def work(request_class: str = "interactive") -> Work:
    return Work("1", "chat", "", (), Sampling(), request_class)


def of(metrics: GatewayMetrics) -> Metrics:
    return parse(metrics.render().decode())


def test_a_request_from_queue_to_end() -> None:
    metrics = GatewayMetrics(CLASSES, dict)
    one = work()
    metrics.dispatched(one, "r0", 0.2)
    metrics.first_token(one, "r0", 0.3)
    metrics.piece(one, 0.05)
    metrics.finished(one, "r0", Final("", usage=Usage(100, 20, 60, 10, 4)), 1.5)
    metrics.first_token(one, "r0", 0.6)
    found = of(metrics)

    def value(name: str, **labels: str) -> float | None:
        labels = {"model": "chat", "request_class": "interactive", **labels}
        return found.value(f"toolkit_gateway_{name}", **labels)

    assert value("queue_seconds_sum") == 0.2
    assert value("ttft_seconds_count") == 2
    assert value("ttft_seconds_bucket", le="0.5") == 1
    assert value("itl_seconds_sum") == 0.05
    assert value("e2e_seconds_sum") == 1.5
    kinds = ("prompt", "cached", "completion")
    assert [value("tokens_total", kind=kind) for kind in kinds] == [100, 60, 20]
    drafts = [value("draft_tokens_total", kind=kind) for kind in ("proposed", "accepted")]
    assert drafts == [10, 4]
    assert value("requests_total", outcome="stop") == 1
    assert value("ttft_target_total", met="true") == 1
    assert value("ttft_target_total", met="false") == 1


def test_what_does_not_end_well() -> None:
    metrics = GatewayMetrics(CLASSES, dict)
    batch = work("batch")
    metrics.refused(batch, "too_late")
    metrics.failed(batch, GatewayError(502, "", code="replica_failed"))
    metrics.withdrawn(batch)
    metrics.retried(batch, "r0")
    metrics.replica_changed("r0", "chat", False, "gone")
    metrics.replica_changed("r0", "chat", True, "")
    metrics.first_token(batch, "r0", 100)  # no target, so none missed
    found = of(metrics)
    assert found.value("toolkit_gateway_refused_total", reason="too_late") == 1
    assert found.value("toolkit_gateway_requests_total", outcome="replica_failed") == 1
    assert found.value("toolkit_gateway_requests_total", outcome="withdrawn") == 1
    assert found.value("toolkit_gateway_retries_total", replica="r0") == 1
    assert found.value("toolkit_gateway_ejections_total", replica="r0") == 1
    assert found.value("toolkit_gateway_ttft_target_total") is None


def test_the_present_state_is_read_when_asked() -> None:
    found = of(GatewayMetrics(CLASSES, lambda: {"chat": STATE}))
    assert found.value("toolkit_gateway_queued", request_class="batch") == 7
    assert found.value("toolkit_gateway_running", replica="r0", request_class="batch") == 5
    assert found.value("toolkit_gateway_replica_up", replica="r0") == 1
    assert found.value("toolkit_gateway_replica_outstanding_tokens") == 900
    assert found.value("toolkit_gateway_replica_kv_reserved_tokens") == 1024


def test_cost_is_that_of_the_last_five_minutes() -> None:
    clock = Clock()
    metrics = GatewayMetrics(CLASSES, dict, cost_per_hour=3.6, clock=clock)
    name = "toolkit_gateway_cost_per_thousand_tokens"
    assert of(metrics).value(name) is None
    clock.now = 100.0
    metrics.finished(work(), "r0", Final("", usage=Usage(900, 100)), 1.0)
    assert of(metrics).value(name) == pytest.approx(0.1)  # 100 s at 0.001 a second
    clock.now = 350.0
    metrics.finished(work(), "r0", Final("", usage=Usage(1900, 100)), 1.0)
    assert of(metrics).value(name) == pytest.approx(0.1)  # 300 s for 3,000 tokens
    clock.now = 450.0
    assert of(metrics).value(name) == pytest.approx(0.15)
    clock.now = 10_000.0
    assert of(metrics).value(name) is None
