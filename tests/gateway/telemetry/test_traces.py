"""Spans of requests, as a collector would get them."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from toolkit.gateway.telemetry.traces import Traces
from toolkit.gateway.work import Final, GatewayError, Sampling, Usage, Work

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traced() -> tuple[Traces, InMemorySpanExporter]:
    provider, kept = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return Traces(provider), kept


def work() -> Work:
    return Work("1", "chat", "a secret", (), Sampling(max_tokens=5), "batch", trace_parent=PARENT)


def by_name(kept: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in kept.get_finished_spans()}


def test_wait_prefill_and_decoding_are_spans_below_the_clients() -> None:
    traces, kept = traced()
    traces.queued(work())
    traces.dispatched(work(), "r0", 0.1)
    traces.first_token(work(), "r0", 0.2)
    traces.finished(work(), "r0", Final("an answer", usage=Usage(9, 3, 4)), 0.3)
    spans = by_name(kept)
    assert list(spans) == ["queue", "prefill", "decode", "chat chat"]
    whole = spans["chat chat"]
    assert whole.parent is not None
    assert f"{whole.parent.trace_id:032x}" == PARENT.split("-")[1]
    for name in ("queue", "prefill", "decode"):
        parent = spans[name].parent
        assert parent is not None
        assert parent.span_id == whole.context.span_id
    assert whole.attributes is not None
    assert whole.attributes["gen_ai.usage.output_tokens"] == 3
    assert whole.attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    everything = "".join(span.to_json() for span in spans.values())
    assert "secret" not in everything
    assert "answer" not in everything


def test_a_retry_waits_again_and_an_error_is_marked() -> None:
    traces, kept = traced()
    traces.queued(work())
    traces.dispatched(work(), "r0", 0.1)
    traces.retried(work(), "r0")
    traces.failed(work(), GatewayError(503, "nobody", code="no_replica"))
    names = [span.name for span in kept.get_finished_spans()]
    assert names == ["queue", "prefill", "queue", "chat chat"]
    whole = by_name(kept)["chat chat"]
    assert whole.status.is_ok is False
    assert [event.name for event in whole.events] == ["retry"]


def test_nothing_is_kept_of_requests_that_have_ended() -> None:
    traces, _ = traced()
    traces.queued(work())
    traces.withdrawn(work())
    traces.withdrawn(work())
    assert not traces._requests
    assert not traces._phases
