"""How much one replica holds at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolkit.serving.metrics import KV_BLOCKS, REQUESTS, Metrics


@dataclass(frozen=True)
class Capacity:
    """Requests at once, and tokens in the KV cache."""

    slots: int
    kv_tokens: int

    @staticmethod
    def of(metrics: Metrics) -> Capacity | None:
        """What the families of the TensorRT-LLM backend say; None if one is missing."""
        slots = metrics.value(REQUESTS, request_type="max")
        blocks = metrics.value(KV_BLOCKS, kv_cache_block_type="max")
        # Several engines of one model have blocks of one size, and a sum over them is no size.
        sizes = [
            sample.value
            for sample in metrics.samples
            if sample.family == KV_BLOCKS and sample.label("kv_cache_block_type") == "tokens_per"
        ]
        if not slots or not blocks or not sizes:
            return None
        tokens = blocks * max(sizes)
        # Prometheus' format has NaN and infinities, and an engine that starts may write them.
        if not (1 <= slots < math.inf and 0 < tokens < math.inf):
            return None
        return Capacity(int(slots), int(tokens))
