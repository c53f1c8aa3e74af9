"""OpenTelemetry traces: one span a request, with its wait, its prefill and its decoding below.

Needs the extra ``traces``. Names of attributes are those of OpenTelemetry's semantic conventions
for generative AI (https://opentelemetry.io/docs/specs/semconv/gen-ai/) where there is one. No
prompt and no answer is ever recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.errors import EnvironmentError_
from toolkit.gateway.telemetry.observer import Observer
from toolkit.gateway.work import Final, GatewayError, Work

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def exporting_to(url: str) -> TracerProvider:
    """A provider that sends spans in batches to a collector, OTLP over HTTP.

    Raises:
        EnvironmentError_: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise EnvironmentError_(
            "OpenTelemetry is not installed",
            where="gateway.traces",
            hint="pip install 'triton-trtllm-toolkit[traces]', or leave gateway.traces out",
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "toolkit-gateway"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return provider


class Traces(Observer):
    """Makes the spans. A client's ``traceparent`` header becomes the parent."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("toolkit.gateway")
        self._propagator = TraceContextTextMapPropagator()
        self._requests: dict[str, Any] = {}
        self._phases: dict[str, Any] = {}

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def queued(self, work: Work) -> None:
        parent = {"traceparent": work.trace_parent} if work.trace_parent else {}
        span = self._tracer.start_span(
            f"chat {work.model}",
            context=self._propagator.extract(parent),
            attributes={
                "gen_ai.request.model": work.model,
                "gen_ai.request.max_tokens": work.sampling.max_tokens or 0,
                "toolkit.request_class": work.request_class,
                "toolkit.request_id": work.id,
            },
        )
        self._requests[work.id] = span
        self._next(work, "queue")

    def dispatched(self, work: Work, replica: str, waited_s: float) -> None:
        self._next(work, "prefill", {"server.address": replica})

    def first_token(self, work: Work, replica: str, ttft_s: float) -> None:
        self._next(work, "decode")

    def retried(self, work: Work, replica: str) -> None:
        span = self._requests.get(work.id)
        if span is not None:
            span.add_event("retry", {"server.address": replica})
        self._next(work, "queue")

    def finished(self, work: Work, replica: str, final: Final, e2e_s: float) -> None:
        usage = final.usage
        attributes = {
            "gen_ai.response.finish_reasons": [final.finish_reason],
            "gen_ai.usage.input_tokens": usage.prompt,
            "gen_ai.usage.output_tokens": usage.completion,
            "toolkit.draft_tokens": usage.drafted,
            "toolkit.accepted_draft_tokens": usage.accepted,
        }
        if usage.cached is not None:
            attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached
        self._end(work, attributes)

    def failed(self, work: Work, error: GatewayError) -> None:
        self._end(work, {"error.type": error.code or str(error.status)}, error.message)

    def withdrawn(self, work: Work) -> None:
        self._end(work, {"error.type": "client_gone"}, "the client went away")

    def _next(self, work: Work, name: str, attributes: dict[str, Any] | None = None) -> None:
        from opentelemetry.trace import set_span_in_context

        before = self._phases.pop(work.id, None)
        if before is not None:
            before.end()
        span = self._requests.get(work.id)
        if span is not None:
            self._phases[work.id] = self._tracer.start_span(
                name, context=set_span_in_context(span), attributes=attributes
            )

    def _end(self, work: Work, attributes: dict[str, Any], problem: str | None = None) -> None:
        from opentelemetry.trace import StatusCode

        phase = self._phases.pop(work.id, None)
        if phase is not None:
            phase.end()
        span = self._requests.pop(work.id, None)
        if span is None:
            return
        span.set_attributes(attributes)
        if problem is not None:
            span.set_status(StatusCode.ERROR, problem)
        span.end()
