"""Names for the beginnings of prompts, so that equal ones are found without their text."""

from __future__ import annotations

from collections.abc import Sequence

BLOCK = 32


def block_hashes(tokens: Sequence[int], block: int = BLOCK) -> tuple[int, ...]:
    """One number for each full block of a prompt, which stands for everything up to its end.

    Equal numbers mean equal beginnings (but for a collision in 64 bits, which costs a worse
    choice of replica and nothing else). The same tokens give the same numbers in every process:
    Python salts the hashes of texts, not those of integers.
    """
    hashes = []
    seed = 0
    for start in range(0, len(tokens) - block + 1, block):
        seed = hash((seed, *tokens[start : start + block]))
        hashes.append(seed)
    return tuple(hashes)
