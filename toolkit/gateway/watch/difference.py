"""The difference of two readings: rates, quantiles and shares of the time between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from toolkit.gateway.watch.histogram import Histogram
from toolkit.gateway.watch.reading import (
    ClassReading,
    Counts,
    EngineReading,
    Figures,
    Reading,
    ReplicaReading,
    SourceReading,
    Target,
)
from toolkit.gateway.watch.view import ClassView, ReplicaView, SourceView, View


def between(before: Reading | None, after: Reading) -> View:
    """What happened between two readings.

    A source that did not answer ``before`` has no rates yet; one whose counters began anew since
    (a restart) has those of its new life.
    """
    spans = [_span(before, each) for each in after.sources]
    seconds = [each.seconds for each in spans if each.seconds is not None]
    classes = [view for span in spans for view in _classes(span)]
    behind = {each.model for each in classes}
    classes += [
        view for span in spans for view in _engine_classes(span) if view.model not in behind
    ]
    return View(
        window_s=max(seconds, default=None),
        sources=tuple(_source(span) for span in spans),
        classes=tuple(classes),
        replicas=tuple(_replicas(spans)),
    )


@dataclass(frozen=True)
class _Span:
    """One source over the window; ``seconds`` is None when it did not answer at both ends.

    Counters of ``before`` are left out where they were counted anew.
    """

    source: SourceReading
    seconds: float | None
    now: Figures
    classes: Mapping[tuple[str, str], ClassReading]
    engines: Mapping[str, EngineReading]
    restarted: bool

    @property
    def target(self) -> Target:
        return self.source.target


def _span(reading: Reading | None, source: SourceReading) -> _Span:
    earlier = reading.of(source.target) if reading else None
    then, now = earlier.figures if earlier else None, source.figures
    if earlier is None or then is None or now is None or source.at <= earlier.at:
        return _Span(source, None, now or Figures(), {}, {}, False)
    restarted = _restarted(then, now)
    engines = {
        model: engine
        for model, engine in then.engines.items()
        if not _fell(engine.counters, now.engines.get(model, EngineReading()).counters)
    }
    return _Span(
        source,
        source.at - earlier.at,
        now,
        {} if restarted else then.classes,
        engines,
        restarted or len(engines) < len(then.engines),
    )


def _restarted(then: Figures, now: Figures) -> bool:
    """Whether the gateway is another process: all its counters are one registry's."""
    if then.born is not None and now.born is not None:
        return now.born > then.born
    return any(_anew(old, now.classes.get(key)) for key, old in then.classes.items())


def _anew(old: ClassReading, new: ClassReading | None) -> bool:
    new = new or ClassReading()
    pairs = zip(old.histograms, new.histograms, strict=True)
    return _fell(old.counters, new.counters) or any(
        before is not None and (after is None or after.less_than(before)) for before, after in pairs
    )


def _fell(old: tuple[Counts, ...], new: tuple[Counts, ...]) -> bool:
    """Whether a counter is smaller, or gone: counters only grow."""
    return any(
        after.get(key, 0.0) < value
        for before, after in zip(old, new, strict=True)
        for key, value in before.items()
    )


def _grown(old: Counts, new: Counts) -> dict[str, float]:
    return {key: value - old.get(key, 0.0) for key, value in new.items()}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _source(span: _Span) -> SourceView:
    target = span.target
    return SourceView(
        name=target.name,
        url=target.url,
        answers=span.source.figures is not None,
        error=span.source.error,
        status=target.status,
        restarts=target.restarts,
        restarted=span.restarted,
        cost_per_thousand_tokens=span.now.cost,
    )


def _classes(span: _Span) -> Iterator[ClassView]:
    for (model, name), new in span.now.classes.items():
        view = ClassView(span.target.name, model, name, new.waiting, new.running)
        if span.seconds is not None:
            old = span.classes.get((model, name), ClassReading())
            view = _with_latencies(_with_rates(view, old, new, span.seconds), old, new)
        yield view


def _with_rates(view: ClassView, old: ClassReading, new: ClassReading, seconds: float) -> ClassView:
    ended = _rates(old.ended, new.ended, seconds)
    tokens = _rates(old.tokens, new.tokens, seconds)
    return replace(
        view,
        requests_per_s=sum(ended.values(), 0.0),
        ended_per_s=ended,
        prompt_tokens_per_s=tokens.get("prompt", 0.0),
        cached_tokens_per_s=tokens.get("cached", 0.0),
        completion_tokens_per_s=tokens.get("completion", 0.0),
        refused_per_s=_rates(old.refused, new.refused, seconds),
    )


def _rates(old: Counts, new: Counts, seconds: float) -> dict[str, float]:
    return {key: grown / seconds for key, grown in _grown(old, new).items()}


def _with_latencies(view: ClassView, old: ClassReading, new: ClassReading) -> ClassView:
    def quantile(after: Histogram | None, before: Histogram | None, share: float) -> float | None:
        return after.since(before).quantile(share) if after else None

    met, drafts = _grown(old.targets, new.targets), _grown(old.drafts, new.drafts)
    return replace(
        view,
        ttft_p50_s=quantile(new.ttft, old.ttft, 0.5),
        ttft_p95_s=quantile(new.ttft, old.ttft, 0.95),
        itl_p50_s=quantile(new.itl, old.itl, 0.5),
        itl_p95_s=quantile(new.itl, old.itl, 0.95),
        queue_p95_s=quantile(new.queue, old.queue, 0.95),
        in_time=_share(met.get("true", 0.0), sum(met.values())),
        acceptance_rate=_share(drafts.get("accepted", 0.0), drafts.get("proposed", 0.0)),
    )


def _engine_classes(span: _Span) -> Iterator[ClassView]:
    """What a Triton tells of itself, for models that no gateway here speaks for."""
    for model, new in span.now.engines.items():
        view = ClassView(span.target.name, model, None, new.waiting, new.running)
        if span.seconds is not None:
            old = span.engines.get(model, EngineReading())
            ended = _rates(old.ended, new.ended, span.seconds)
            tokens = _rates(old.tokens, new.tokens, span.seconds)
            view = replace(
                view,
                requests_per_s=sum(ended.values(), 0.0) if new.ended else None,
                ended_per_s=ended,
                prompt_tokens_per_s=tokens.get("input"),
                cached_tokens_per_s=tokens.get("input_cached"),
                completion_tokens_per_s=tokens.get("output"),
            )
        yield view


def _replicas(spans: list[_Span]) -> Iterator[ReplicaView]:
    """Every replica once: the gateway's words joined with those of the Triton of that address."""
    tritons = {span.target.replica: span for span in spans if span.target.replica}
    joined = set()
    for span in spans:
        for (model, name), one in span.now.replicas.items():
            triton = tritons.get(name)
            joined.add((model, name))
            yield _with_engine(_as_seen(span.target.name, model, name, one), triton, model)
    for span in spans:
        name = span.target.replica or span.target.address
        models = list(span.now.engines)
        if not span.source.figures and span.target.replica and span.target.model:
            models = [span.target.model]
        for model in models:
            if (model, name) not in joined:
                up = span.source.figures is not None
                view = ReplicaView(span.target.name, model, name, up)
                yield _with_engine(view, span, model)


def _as_seen(source: str, model: str, name: str, one: ReplicaReading) -> ReplicaView:
    reserved = None
    if one.kv_reserved is not None and one.kv_tokens is not None:
        reserved = _share(one.kv_reserved, one.kv_tokens)
    return ReplicaView(
        source,
        model,
        name,
        one.up,
        running=one.running,
        slots=one.slots,
        outstanding_tokens=one.outstanding_tokens,
        kv_reserved=reserved,
    )


def _with_engine(view: ReplicaView, span: _Span | None, model: str) -> ReplicaView:
    if span is None:
        return view
    view = replace(view, restarts=span.target.restarts)
    new = span.now.engines.get(model)
    if new is None:
        return view
    view = replace(
        view,
        running=new.running if view.running is None else view.running,
        slots=new.slots if view.slots is None else view.slots,
        kv_use=new.kv_use,
        preemptions_total=sum(new.preemptions.values()) if new.preemptions else None,
    )
    if span.seconds is None:
        return view
    old = span.engines.get(model, EngineReading())
    blocks, tokens = _grown(old.blocks, new.blocks), _grown(old.tokens, new.tokens)
    preempted = _grown(old.preemptions, new.preemptions)
    return replace(
        view,
        kv_hit_rate=_share(blocks.get("reused", 0.0), blocks.get("looked_up", 0.0)),
        acceptance_rate=_share(tokens.get("draft_accepted", 0.0), tokens.get("draft", 0.0)),
        preemptions=sum(preempted.values()) if preempted else None,
    )
