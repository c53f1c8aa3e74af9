"""From two scrapes to rates, quantiles, shares: restarts, absences and missing families too."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from exposition import GATEWAY, TRITON

from toolkit.gateway.scheduling import ModelState, ReplicaState, Snapshot
from toolkit.gateway.telemetry.metrics import GatewayMetrics
from toolkit.gateway.watch import Reading, Target, View, between
from toolkit.gateway.watch.families import read
from toolkit.gateway.watch.reading import Figures, SourceReading
from toolkit.gateway.work import Final, Sampling, Usage, Work
from toolkit.serving.metrics import parse
from toolkit.spec.gateway import RequestClass

AT = Target("chat", "http://gw:9000/metrics")
TRITON_AT = Target("chat", "http://t:8002/metrics", "t:8001", "chat", "ready", 3)
CLASSES = {"chat": {"interactive": RequestClass(ttft_ms=500), "batch": RequestClass()}}
STATE = Snapshot(
    models=(ModelState("chat", {"batch": 7, "interactive": 0}, {}),),
    replicas=(
        ReplicaState("t:8001", "chat", True, 8, 3, {"batch": 5}, 900, 4096, 1024),
        ReplicaState("u:8001", "chat", False, 8, 0, {}, 0, 4096, 0),
    ),
)


def gateway() -> GatewayMetrics:
    return GatewayMetrics(CLASSES, lambda: {"chat": STATE}, cost_per_hour=3.6)


def serve(metrics: GatewayMetrics, count: int, ttft_s: float, request_class: str) -> None:
    work = Work("1", "chat", "", (), Sampling(), request_class)
    for _ in range(count):
        metrics.dispatched(work, "t:8001", ttft_s / 2)
        metrics.first_token(work, "t:8001", ttft_s)
        metrics.piece(work, 0.03)
        metrics.finished(work, "t:8001", Final("", usage=Usage(100, 20, 60, 10, 4)), ttft_s + 1)


def figures(metrics: GatewayMetrics) -> Figures:
    return read(parse(metrics.render().decode()))


def engine(text: str = TRITON, model: str = "chat") -> Figures:
    return read(parse(text), model)


def reading(at: float, figures: Figures | None, target: Target = AT) -> Reading:
    error = "" if figures else "connection refused"
    return Reading((SourceReading(target, at, figures, error),))


def joined(*readings: Reading) -> Reading:
    return Reading(tuple(source for each in readings for source in each.sources))


def test_one_window_of_a_gateway() -> None:
    metrics = gateway()
    serve(metrics, 50, 4.0, "interactive")  # long before the window
    before = figures(metrics)
    serve(metrics, 6, 0.3, "interactive")
    serve(metrics, 2, 0.7, "interactive")
    work = Work("1", "chat", "", (), Sampling(), "batch")
    for reason in ("too_late", "too_late", "queue_full"):
        metrics.refused(work, reason)
    view = between(reading(10.0, before), reading(12.0, figures(metrics)))
    assert view.window_s == 2.0
    batch, interactive = view.classes
    assert (batch.request_class, batch.waiting, batch.running) == ("batch", 7, 5)
    assert batch.refused_per_s == {"too_late": 1.0, "queue_full": 0.5}
    assert batch.requests_per_s == 0
    assert batch.ttft_p50_s is None
    assert batch.in_time is None
    assert interactive.requests_per_s == 4.0
    assert interactive.ended_per_s == {"stop": 4.0}
    assert interactive.prompt_tokens_per_s == 400
    assert interactive.cached_tokens_per_s == 240
    assert interactive.completion_tokens_per_s == 80
    # 6 of 8 between 0.25 and 0.5: the 4th of 8 is two thirds up; the 7.6th in 0.5 to 1.
    assert interactive.ttft_p50_s == pytest.approx(0.25 + 0.25 * 4 / 6)
    assert interactive.ttft_p95_s == pytest.approx(0.5 + 0.5 * 1.6 / 2)
    assert interactive.itl_p50_s == pytest.approx(0.03)
    assert interactive.itl_p95_s == pytest.approx(0.02 + 0.02 * 0.95)
    assert interactive.queue_p95_s == pytest.approx(0.25 + 0.25 * 1.6 / 2)
    assert interactive.in_time == 0.75
    assert interactive.acceptance_rate == 0.4
    assert view.sources[0].cost_per_thousand_tokens is not None


def test_the_first_look_has_gauges_and_no_rates() -> None:
    metrics = gateway()
    serve(metrics, 5, 0.3, "interactive")
    view = between(None, reading(1.0, figures(metrics)))
    assert view.window_s is None
    batch, interactive = view.classes
    assert batch.waiting == 7
    assert interactive.requests_per_s is None
    assert interactive.ttft_p50_s is None
    assert view.replicas[0].running == 5


def test_a_restarted_gateway_counts_from_nothing() -> None:
    old, new = gateway(), gateway()
    serve(old, 40, 3.0, "batch")
    serve(new, 4, 0.3, "batch")
    view = between(reading(1.0, figures(old)), reading(3.0, figures(new)))
    assert view.sources[0].restarted
    batch = next(each for each in view.classes if each.request_class == "batch")
    assert batch.requests_per_s == 2.0
    assert batch.ttft_p95_s is not None
    assert batch.ttft_p95_s < 0.5


def test_a_restart_is_seen_even_when_the_new_counters_are_larger() -> None:
    old, new = gateway(), gateway()
    serve(old, 4, 3.0, "batch")
    serve(new, 10, 3.0, "batch")
    view = between(reading(1.0, figures(old)), reading(3.0, figures(new)))
    assert view.sources[0].restarted
    assert view.classes[0].requests_per_s == 5.0


@pytest.mark.parametrize("births", [True, False])
def test_a_restarted_gateway_without_a_request_yet(births: bool) -> None:
    metrics = gateway()
    serve(metrics, 4, 3.0, "batch")
    old = figures(metrics) if births else replace(figures(metrics), born=None)
    view = between(reading(1.0, old), reading(2.0, figures(gateway())))
    assert view.sources[0].restarted
    assert all(each.requests_per_s == 0 for each in view.classes)


def test_without_births_a_smaller_counter_tells_and_a_grown_one_does_not() -> None:
    metrics, fewer = gateway(), gateway()
    serve(metrics, 4, 3.0, "batch")
    old = replace(figures(metrics), born=None)
    serve(fewer, 3, 3.0, "batch")
    view = between(reading(1.0, old), reading(2.0, replace(figures(fewer), born=None)))
    assert view.sources[0].restarted
    assert view.classes[0].requests_per_s == 3.0
    serve(metrics, 1, 3.0, "batch")
    view = between(reading(1.0, old), reading(2.0, replace(figures(metrics), born=None)))
    assert not view.sources[0].restarted
    assert view.classes[0].requests_per_s == 1.0


def test_a_gateway_goes_away_and_comes_back() -> None:
    metrics = gateway()
    serve(metrics, 4, 0.3, "batch")
    looks = [reading(1.0, figures(metrics)), reading(2.0, None)]
    serve(metrics, 8, 0.3, "batch")
    looks.append(reading(3.0, figures(metrics)))
    serve(metrics, 2, 0.3, "batch")
    looks.append(reading(4.0, figures(metrics)))
    views = [between(one, other) for one, other in itertools.pairwise(looks)]
    away, back, after = views
    assert not away.sources[0].answers
    assert away.sources[0].error == "connection refused"
    assert (away.classes, away.replicas, away.window_s) == ((), (), None)
    assert back.sources[0].answers
    assert not back.sources[0].restarted
    assert [each.requests_per_s for each in back.classes] == [None, None]
    assert after.classes[0].requests_per_s == 2.0


def test_replicas_are_the_gateways_joined_with_their_tritons() -> None:
    metrics = gateway()
    busy = TRITON.replace(
        'type="used",model="smollm2",version="1"} 0', 'type="used",model="m"} 512'
    )
    after = joined(reading(2.0, figures(metrics)), reading(2.0, engine(busy), TRITON_AT))
    before = joined(reading(1.0, figures(metrics)), reading(1.0, engine(), TRITON_AT))
    one, other = between(before, after).replicas
    assert (one.replica, one.up, one.running, one.slots) == ("t:8001", True, 5, 8)
    assert (one.outstanding_tokens, one.kv_reserved, one.kv_use) == (900, 0.25, 0.25)
    assert (one.restarts, one.preemptions, one.preemptions_total) == (3, 0, 0)
    assert (other.replica, other.up, other.kv_use, other.restarts) == ("u:8001", False, None, None)
    # The gateway speaks for the model: the engine's own counts are not shown beside it.
    assert all(each.request_class for each in between(before, after).classes)


def grown(text: str, **increases: int) -> str:
    """The recorded Triton with some counters further on, by the value of their label."""
    lines = []
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        for kind, increase in increases.items():
            if name.startswith("toolkit_llm_") and f'="{kind}"' in name and "_total" in name:
                value = str(int(value) + increase)
        lines.append(f"{name} {value}" if name else line)
    return "\n".join(lines)


def test_a_triton_without_gateway() -> None:
    more = {"looked_up": 40, "reused": 30, "draft": 20, "draft_accepted": 5, "kv_cache": 2}
    later = grown(TRITON, **more, input=100, input_cached=60, output=50, length=4)
    at = Target("t:8002", "http://t:8002/metrics")
    before, after = reading(1.0, engine(model=""), at), reading(3.0, engine(later, ""), at)
    view = between(before, after)
    (one,) = view.classes
    assert (one.model, one.request_class, one.requests_per_s) == ("smollm2", None, 2.0)
    rates = one.prompt_tokens_per_s, one.cached_tokens_per_s, one.completion_tokens_per_s
    assert rates == (50, 30, 25)
    assert one.ttft_p50_s is None
    (replica,) = view.replicas
    assert (replica.replica, replica.up, replica.slots) == ("t:8002", True, 32)
    assert (replica.kv_hit_rate, replica.acceptance_rate) == (0.75, 0.25)
    assert (replica.preemptions, replica.preemptions_total) == (2, 2)
    assert replica.outstanding_tokens is None
    assert replica.restarts is None


def test_a_restarted_triton_counts_from_nothing() -> None:
    fresh = TRITON.replace("} 1077", "} 3")  # its steps
    for kind in ("16941", "4128", "17742", "129", "676", "417"):
        fresh = fresh.replace(f"}} {kind}", "} 6")
    view = between(reading(1.0, engine(), TRITON_AT), reading(2.0, engine(fresh), TRITON_AT))
    assert view.sources[0].restarted
    assert view.classes[0].completion_tokens_per_s == 6
    assert view.replicas[0].kv_hit_rate == 1.0


def test_a_triton_of_nvidias_own_backend_has_gauges_alone() -> None:
    text = "\n".join(line for line in TRITON.splitlines() if "toolkit_llm" not in line)
    view = between(reading(1.0, engine(text), TRITON_AT), reading(2.0, engine(text), TRITON_AT))
    (one,) = view.classes
    assert (one.model, one.waiting, one.running) == ("chat", 0, 0)
    assert one.requests_per_s is None
    assert one.prompt_tokens_per_s is None
    (replica,) = view.replicas
    assert (replica.slots, replica.kv_use, replica.kv_hit_rate) == (32, 0, None)
    assert replica.preemptions is None


def test_a_triton_that_is_away_is_a_replica_that_is_not_up() -> None:
    (replica,) = between(None, reading(1.0, None, TRITON_AT)).replicas
    assert (replica.model, replica.replica, replica.up) == ("chat", "t:8001", False)
    assert replica.restarts == 3


def test_a_class_seen_for_the_first_time_counts_whole() -> None:
    metrics = gateway()
    serve(metrics, 1, 0.3, "batch")
    before = figures(metrics)
    serve(metrics, 3, 0.3, "interactive")
    view = between(reading(1.0, before), reading(2.0, figures(metrics)))
    assert not view.sources[0].restarted
    assert view.classes[1].requests_per_s == 3.0


@pytest.mark.parametrize("read_all", [lambda: read(parse(GATEWAY)), lambda: engine(GATEWAY)])
def test_the_recorded_gateway(read_all: Callable[[], Figures]) -> None:
    found = read_all()
    assert found.engines == {}
    one = found.classes["smollm2", "interactive"]
    assert one.ended == {"stop": 1, "length": 201}
    assert one.ttft is not None
    assert one.ttft.count == 202
    view: View = between(reading(1.0, found), reading(2.0, found))
    assert [each.requests_per_s for each in view.classes] == [0, 0]
    assert not view.sources[0].restarted
