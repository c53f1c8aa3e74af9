"""Triton metrics of the engine, under the names that NVIDIA's C++ backend exports.

Families and labels are those of custom_metrics_reporter.cc in NVIDIA/TensorRT-LLM
(triton_backend/inflight_batcher_llm/src/custom_metrics_reporter), so that dashboards and
endpoint pickers read every runtime alike; what it has no family for is called
``toolkit_llm_*``. Each update is a message to the server, so only changed values are sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import triton_python_backend_utils as pb_utils

from .engine_api import EngineStats
from .sender import Totals

_GAUGES = {
    "nv_trt_llm_request_metrics": ("request_type", "TRT LLM request metrics"),
    "nv_trt_llm_runtime_memory_metrics": ("memory_type", "TRT LLM runtime memory metrics"),
    "nv_trt_llm_kv_cache_block_metrics": (
        "kv_cache_block_type",
        "TRT LLM KV cache block metrics",
    ),
    "nv_trt_llm_inflight_batcher_metrics": (
        "inflight_batcher_specific_metric",
        "TRT LLM inflight_batcher-specific metrics",
    ),
    "nv_trt_llm_general_metrics": ("general_type", "General TRT LLM metrics"),
    "toolkit_llm_ratio": (
        "ratio",
        "Share of looked-up KV blocks found, and of draft tokens accepted, since the start",
    ),
}
_COUNTERS = {
    "toolkit_llm_tokens_total": ("kind", "Tokens of finished requests, and draft tokens"),
    "toolkit_llm_kv_cache_blocks_total": ("kind", "KV blocks looked up and found again"),
    "toolkit_llm_requests_total": ("finish_reason", "Requests that have ended"),
    "toolkit_llm_preemptions_total": ("kind", "Requests put back for want of KV blocks"),
}

_UPSTREAM = "nv_"

Value = tuple[str, str, float]
"""Family, value of its label, figure."""


class Metrics:
    """The families of one model; :meth:`update` sends what has changed."""

    def __init__(
        self, model: str, version: str, *, instance: str = "", engine_families: bool = True
    ) -> None:
        """``instance`` tells engines of one model apart where there are several.

        Without ``engine_families`` those of NVIDIA's backend are left to that backend.
        """
        self._common = {"model": model, "version": version}
        if instance:
            self._common["instance"] = instance
        self._engine_families = engine_families
        self._families = {
            name: pb_utils.MetricFamily(name=name, description=text, kind=kind)
            for kind, families in (
                (pb_utils.MetricFamily.GAUGE, _GAUGES),
                (pb_utils.MetricFamily.COUNTER, _COUNTERS),
            )
            for name, (_, text) in families.items()
            if self._is_ours(name)
        }
        self._metrics: dict[tuple[str, str], Any] = {}
        self._sent: dict[tuple[str, str], float] = {}
        self._iterations = -1

    def update(self, stats: EngineStats, totals: Totals) -> None:
        """Bring every metric to the engine's present figures."""
        for family, label, figure in (
            *_gauges(stats),
            *_counters(stats, totals),
            *self._timestamp(stats),
        ):
            if self._is_ours(family):
                self._set(family, label, figure)

    def _is_ours(self, family: str) -> bool:
        return self._engine_families or not family.startswith(_UPSTREAM)

    def _timestamp(self, stats: EngineStats) -> Iterator[Value]:
        """Microseconds since the epoch of the last look that found the engine further on."""
        if stats.iterations != self._iterations:
            self._iterations = stats.iterations
            yield "nv_trt_llm_general_metrics", "timestamp", time.time_ns() // 1000

    def _set(self, family: str, label: str, figure: float) -> None:
        key = (family, label)
        metric = self._metrics.get(key)
        if metric is None:
            name = (_GAUGES.get(family) or _COUNTERS[family])[0]
            metric = self._families[family].Metric(labels={**self._common, name: label})
            self._metrics[key] = metric
        before = self._sent.get(key, 0.0)
        if figure != before:
            if family in _COUNTERS:
                metric.increment(figure - before)
            else:
                metric.set(figure)
            self._sent[key] = figure


def _gauges(stats: EngineStats) -> Iterator[Value]:
    request, cache = "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"
    yield request, "active", stats.running + stats.waiting
    yield request, "max", stats.max_batch_size
    yield request, "scheduled", stats.running
    yield request, "context", stats.context_requests
    yield request, "waiting", stats.waiting
    yield cache, "max", stats.blocks_max
    yield cache, "free", stats.blocks_free
    yield cache, "used", stats.blocks_used
    yield cache, "tokens_per", stats.tokens_per_block
    yield cache, "reused", stats.blocks_reused_total
    yield cache, "fraction", round(stats.blocks_used / max(stats.blocks_max, 1), 4)
    memory = "nv_trt_llm_runtime_memory_metrics"
    yield memory, "cpu", stats.memory_bytes
    yield memory, "gpu", stats.gpu_memory_bytes
    yield memory, "pinned", stats.pinned_memory_bytes
    batcher = "nv_trt_llm_inflight_batcher_metrics"
    yield batcher, "total_context_tokens", stats.context_tokens
    yield batcher, "generation_requests", stats.generation_requests
    yield batcher, "paused_requests", stats.paused
    yield "nv_trt_llm_general_metrics", "iteration_counter", stats.iterations
    found, looked_up = stats.blocks_reused_total, stats.blocks_looked_up_total
    yield "toolkit_llm_ratio", "kv_cache_hit", round(found / max(looked_up, 1), 4)
    accepted, proposed = stats.accepted_draft_tokens_total, stats.draft_tokens_total
    yield "toolkit_llm_ratio", "draft_acceptance", round(accepted / max(proposed, 1), 4)


def _counters(stats: EngineStats, totals: Totals) -> Iterator[Value]:
    tokens, blocks = "toolkit_llm_tokens_total", "toolkit_llm_kv_cache_blocks_total"
    yield tokens, "input", totals.input_tokens
    yield tokens, "input_cached", totals.cached_tokens
    yield tokens, "output", totals.output_tokens
    yield tokens, "draft", stats.draft_tokens_total
    yield tokens, "draft_accepted", stats.accepted_draft_tokens_total
    yield blocks, "looked_up", stats.blocks_looked_up_total
    yield blocks, "reused", stats.blocks_reused_total
    yield "toolkit_llm_preemptions_total", "kv_cache", stats.preemptions_total
    # Copied in one go: the sender's thread may count a reason for the first time meanwhile.
    for reason, count in list(totals.finished.items()):
        yield "toolkit_llm_requests_total", reason, count
