"""What deriving a draft did, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class DraftReport:
    """A derived draft model.

    Attributes:
        layers: Indices of the target's layers that were kept.
        parameters: Of the draft; ``target_parameters`` of the target. Tied weights count once.
        steps: Optimizer steps.
        train_tokens: Positions that were distilled on in total, repeats counted.
        loss_first: Mean KL divergence to the target in nats over the first steps, and
            ``loss_last`` over the last ones.
        acceptance_before: Share of positions where draft and target agree on the most likely
            token, on the target's own greedy answers to held-out prompts, before the distillation.
        acceptance: The same after it: the chance that a greedy draft token is accepted.
        accepted_per_step: Tokens a target step yields with five draft tokens at that chance,
            (1 - a^6) / (1 - a).
        heldout_tokens: Positions behind the acceptance figures.
        seconds: Duration of each stage.
        peak_memory_bytes: Largest resident size of the process.
    """

    layers: tuple[int, ...]
    parameters: int
    target_parameters: int
    steps: int
    train_tokens: int
    loss_first: float | None
    loss_last: float | None
    acceptance_before: float
    acceptance: float
    accepted_per_step: float
    heldout_tokens: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DraftReport:
        """The inverse of :meth:`to_json`."""
        return cls(**{**values, "layers": tuple(values["layers"])})


def tokens_per_step(acceptance: float, draft_tokens: int = 5) -> float:
    """Expected tokens of one target step, with independent acceptance of each draft token.

    Leviathan et al. 2023 (arXiv 2211.17192), equation 1.
    """
    if acceptance >= 1:
        return draft_tokens + 1.0
    return float((1 - acceptance ** (draft_tokens + 1)) / (1 - acceptance))
