"""What the engine was told: limits, cache, batching, speculation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

Policy = Literal["guaranteed_no_evict", "max_utilization", "static_batch"]


@dataclass(frozen=True)
class EngineConfig:
    """Every field is honoured; an unknown one is an error.

    Lengths are in tokens, ``kv_cache_bytes`` in bytes (None: what ``max_batch_size`` full
    sequences need). ``speculation`` is ``none``, ``draft_model`` or ``ngram``; with more than
    ``speculation_max_concurrency`` requests generating it pauses.
    """

    max_batch_size: int = 64
    max_input_len: int = 3072
    max_seq_len: int = 4096
    max_num_tokens: int = 2048
    policy: Policy = "guaranteed_no_evict"
    chunked_prefill: bool = True
    max_queue_size: int = 256
    stream_interval: int = 1
    kv_cache_reuse: bool = True
    kv_cache_bytes: int | None = None
    kv_cache_fraction: float = 0.9
    kv_cache_precision: Literal["f32", "f16", "bf16", "u8"] = "f16"
    tokens_per_block: int = 32
    speculation: Literal["none", "draft_model", "ngram"] = "none"
    max_draft_len: int = 0
    max_matching_ngram_size: int = 3
    speculation_max_concurrency: int | None = None
    inference_precision: Literal["f32", "bf16", "f16"] = "f32"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.max_input_len >= self.max_seq_len:
            raise ValueError("max_input_len must be below max_seq_len")
        if not self.chunked_prefill and self.max_num_tokens < self.max_input_len:
            raise ValueError("without chunked_prefill, max_num_tokens must cover max_input_len")
        if self.max_num_tokens < self.max_batch_size * (self.max_draft_len + 1):
            raise ValueError(
                "max_num_tokens must be at least max_batch_size x (max_draft_len + 1), "
                f"here {self.max_batch_size * (self.max_draft_len + 1)}"
            )
        if (self.speculation == "none") != (self.max_draft_len == 0):
            raise ValueError("max_draft_len belongs to a speculation method, and it needs one")

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> EngineConfig:
        """The ``engine`` section of settings.json.

        Raises:
            ValueError: unknown field or impossible combination.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"unknown engine settings: {', '.join(unknown)}")
        return cls(**settings)
