"""Iteration statistics of the executor as the figures that the metrics show.

Names of the records are the executor's public JSON (``IterationStats``, ``KvCacheStats``,
``InflightBatchingStats``, ``SpecDecodingStats``); sections that a release lacks count as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_serving.engine_api import EngineStats


class Statistics:
    """Keeps the newest record and sums what records give by iteration."""

    def __init__(self, max_batch_size: int) -> None:
        self._max_batch_size = max_batch_size
        self._latest: Mapping[str, Any] = {}
        self._drafted = 0
        self._accepted = 0

    def take(self, record: Mapping[str, Any]) -> None:
        """One iteration's record."""
        self._latest = record
        drafting = record.get("specDecodingStats") or {}
        self._drafted += drafting.get("numDraftTokens", 0)
        self._accepted += drafting.get("numAcceptedTokens", 0)

    def stats(self, inside: int, waiting: int) -> EngineStats:
        """Figures now; ``inside`` requests are with the engine, ``waiting`` before it.

        Records come with iterations: an idle engine's last one would show its last requests for
        ever.
        """
        record = self._latest if inside else {}
        batch = record.get("inflightBatchingStats") or {}
        cache = self._latest.get("kvCacheStats") or {}
        queued = min(inside, int(record.get("numQueuedRequests", 0)))
        return EngineStats(
            running=inside - queued,
            waiting=waiting + queued,
            max_batch_size=self._max_batch_size,
            context_requests=batch.get("numContextRequests", 0),
            generation_requests=batch.get("numGenRequests", 0),
            context_tokens=batch.get("numCtxTokens", 0),
            paused=batch.get("numPausedRequests", 0),
            blocks_max=cache.get("maxNumBlocks", 0),
            blocks_used=cache.get("usedNumBlocks", 0),
            blocks_free=cache.get("freeNumBlocks", 0),
            tokens_per_block=cache.get("tokensPerBlock", 0),
            blocks_reused_total=cache.get("reusedBlocks", 0),
            blocks_looked_up_total=cache.get("reusedBlocks", 0) + cache.get("missedBlocks", 0),
            draft_tokens_total=self._drafted,
            accepted_draft_tokens_total=self._accepted,
            iterations=self._latest.get("iter", 0),
            memory_bytes=self._latest.get("cpuMemUsage", 0),
            gpu_memory_bytes=self._latest.get("gpuMemUsage", 0),
            pinned_memory_bytes=self._latest.get("pinnedMemUsage", 0),
        )
