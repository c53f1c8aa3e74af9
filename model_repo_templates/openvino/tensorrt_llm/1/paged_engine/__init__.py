"""A continuous-batching engine on OpenVINO's paged attention.

One idea a file: ``config`` (what it was built for), ``blocks`` (paged KV cache with prefix
reuse), ``sequence`` (one request's state), ``scheduler`` (who computes what in the next
step), ``runner`` (the graph), ``sampler`` (logits to tokens), ``proposers`` (draft tokens),
``step`` (one iteration), ``engine`` (the thread around it), ``load`` and ``memory`` (how large
its cache becomes).
"""

from __future__ import annotations

from .config import EngineConfig
from .engine import PagedEngine
from .load import create

__all__ = ["EngineConfig", "PagedEngine", "create"]
