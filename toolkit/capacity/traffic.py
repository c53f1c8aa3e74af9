"""What a replica is asked for, and what is gained by reuse and speculation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests, all of one size.

    Attributes:
        prompt_tokens: Tokens of a prompt.
        output_tokens: Tokens of an answer.
        hit_rate: Share of a prompt's tokens whose keys and values are found in the cache.
        acceptance: Chance that a drafted token is accepted.
        drafts: Tokens drafted one after the other before each step; 0 without speculation.
        checked: Drafts that a step checks, where a tree of them has more than it is deep.
    """

    prompt_tokens: float
    output_tokens: float
    hit_rate: float = 0.0
    acceptance: float = 0.0
    drafts: int = 0
    checked: int = 0

    @property
    def queries(self) -> int:
        """Tokens that a step computes for each request: its next one and the drafts."""
        return 1 + max(self.drafts, self.checked) if self.drafts else 1

    @property
    def cached_tokens(self) -> float:
        """Tokens of a prompt that need not be computed; the last one always is."""
        return min(self.hit_rate * self.prompt_tokens, max(self.prompt_tokens - 1, 0))

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step gives each request."""
        return expected_tokens(self.acceptance, self.drafts)


def expected_tokens(acceptance: float, drafts: int) -> float:
    """Tokens that one step of speculative decoding yields on average.

    ``(1 - a^(k+1)) / (1 - a)`` for k drafted tokens, each accepted with probability a on its own
    (Leviathan, Kalman, Matias: Fast Inference from Transformers via Speculative Decoding, ICML
    2023, equation 1).
    """
    if drafts <= 0:
        return 1.0
    if acceptance >= 1:
        return float(drafts + 1)
    return float((1 - acceptance ** (drafts + 1)) / (1 - acceptance))


def acceptance_of(share: float, drafts: int) -> float:
    """The chance that a drafted token is accepted, from the share of all drafted ones that were.

    The share is lower: what follows a refused token is refused with it. Inverts
    :func:`expected_tokens` by halving.
    """
    accepted = min(max(share, 0.0), 1.0) * drafts
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if expected_tokens(middle, drafts) - 1 < accepted:
            low = middle
        else:
            high = middle
    return high if accepted > 0 else 0.0
