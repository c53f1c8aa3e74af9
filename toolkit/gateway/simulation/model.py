"""What an engine costs a step.

A step of continuous batching computes one token for every running answer and a chunk of waiting
prompts. Its time is modelled as

    hypot(step_s, prefill_s * prompt tokens + decode_s * answers)
        + context_s * tokens in their contexts

A step reads the weights once, whatever it computes, which takes ``step_s``; beyond some number of
tokens computing takes longer than reading, and hides it: a roofline (Williams, Waterman and
Patterson, 2009) with its corner rounded, since neither side hides the other wholly. Steps of the
CPU engine with 1 to 1,000 tokens were 5% off this curve at most, and up to 30% off the sum of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineModel:
    """An engine: what a step costs, and what it holds.

    ``kv_tokens`` 0 stands for enough. ``reuse``: finished prompts stay in the KV cache until it
    needs the room. ``send_s`` passes between the gateway's decision and the engine's queue.
    """

    step_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    context_s: float = 0.0
    slots: int = 64
    kv_tokens: int = 0
    max_num_tokens: int = 2048
    reuse: bool = True
    send_s: float = 0.001

    def step_time(self, prefill_tokens: int, decodes: int, context_tokens: int) -> float:
        """Seconds that a step takes."""
        computing = self.prefill_s * prefill_tokens + self.decode_s * decodes
        return math.hypot(self.step_s, computing) + self.context_s * context_tokens
