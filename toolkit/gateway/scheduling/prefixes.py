"""Names for the beginnings of prompts, and which of them an engine still holds."""

from __future__ import annotations

from collections import OrderedDict
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


class PrefixIndex:
    """The prompt blocks that an engine's cache holds, as far as one can tell from outside.

    Least recently used first out, as in the engines. A chain is touched from its end to its
    beginning, so whatever is held has all its predecessors held: the longest known beginning is
    found by bisection.
    """

    def __init__(self, blocks: int) -> None:
        self._most = max(1, blocks)
        self._held: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def match(self, prefix: tuple[int, ...]) -> int:
        """How many blocks of this prompt are held, from its beginning."""
        held = self._held
        low, high = 0, len(prefix)
        while low < high:
            middle = (low + high + 1) // 2
            if prefix[middle - 1] in held:
                low = middle
            else:
                high = middle - 1
        return low

    def touch(self, prefix: tuple[int, ...]) -> None:
        """This prompt is computed now: its blocks are the youngest."""
        held = self._held
        for name in reversed(prefix):
            held[name] = None
            held.move_to_end(name)
        while len(held) > self._most:
            held.popitem(last=False)

    def clear(self) -> None:
        """The engine has started anew."""
        self._held.clear()
