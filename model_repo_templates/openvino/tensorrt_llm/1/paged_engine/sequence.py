"""One request inside the engine: its tokens, its blocks, how far it has been computed."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_serving.engine_api import FinishReason, GenerationRequest, Usage


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens known, and of how many the KV cache holds keys and values.

    ``computed`` counts tokens in the target's cache, ``drafted`` in the draft's. ``table``
    lists the blocks in order; ``remembered`` of them are full and findable, and ``prefix`` is
    the identity after those.
    """

    request: GenerationRequest
    tokens: list[int]
    limit: int
    usage: Usage
    table: list[int] = field(default_factory=list)
    computed: int = 0
    drafted: int = 0
    remembered: int = 0
    prefix: int = -1
    unsent: list[int] = field(default_factory=list)
    unsent_log_probs: list[float] = field(default_factory=list)
    sent_any: bool = False
    finish: FinishReason | None = None
    error: str = ""
    cancelled: bool = False

    @property
    def prompt_length(self) -> int:
        return len(self.request.prompt)

    @property
    def output_length(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def generating(self) -> bool:
        """Whether only the newest token (and drafts) are left to compute."""
        return self.computed == len(self.tokens) - 1 and self.output_length > 0
