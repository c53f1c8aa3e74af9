"""The ``engine`` section of settings.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llm_serving.engine_api import GenerationRequest


@dataclass(frozen=True)
class TritonEngineSettings:
    """Which models answer, and how many requests they get at once.

    Attributes:
        release: The TensorRT-LLM that the engines are built for.
        target: The Triton model that answers.
        draft: The one that proposes tokens; None without speculation.
        max_draft_len: Tokens that it proposes at once, at most.
        adapters: LoRA adapters by name: the task id that the backend knows each one by.
    """

    runtime: str
    release: str
    max_batch_size: int
    max_queue_size: int
    target: str = "tensorrt_llm"
    draft: str | None = None
    max_draft_len: int = 0
    adapters: Mapping[str, int] = field(default_factory=dict)
    guided_decoding: bool = False

    def __post_init__(self) -> None:
        if (self.draft is None) != (self.max_draft_len == 0):
            raise ValueError("max_draft_len belongs to a draft model, and a draft model needs it")

    def drafts_of(self, request: GenerationRequest) -> int:
        """Tokens that a draft model proposes at once for ``request``; 0 without one."""
        wanted = self.max_draft_len if request.draft_tokens is None else request.draft_tokens
        return min(self.max_draft_len, wanted)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> TritonEngineSettings:
        """Read it.

        Raises:
            ValueError: an unknown field.
        """
        unknown = sorted(set(settings) - {each.name for each in fields(cls)})
        if unknown:
            raise ValueError(f"unknown engine settings: {', '.join(unknown)}")
        return cls(**settings)
