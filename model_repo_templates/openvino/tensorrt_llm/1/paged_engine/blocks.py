"""The paged KV cache's books: which block holds what, and which can be used again.

A block holds the keys and values of ``tokens_per_block`` consecutive tokens. A full block is
known by its tokens and the block before it, so equal prefixes of different requests find the
same blocks (prefix reuse). Blocks that nobody holds stay findable until their place is needed;
the one unused for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

_ROOT = -1

BlockKey = tuple[int, tuple[int, ...]]
"""The identity of the prefix before a block, and the block's own tokens."""


class OutOfBlocksError(Exception):
    """The pool has no free block left."""


@dataclass(slots=True)
class _Block:
    holders: int = 0
    prefix: int | None = None
    key: BlockKey | None = None
    drafted: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """Cached blocks of a prompt's beginning, and the prefix identity after them."""

    blocks: tuple[int, ...]
    prefix: int


class BlockPool:
    """Hands out blocks, counts holders, remembers full ones.

    Args:
        count: blocks in the pool.
        tokens_per_block: tokens of one block.
        reuse: whether full blocks stay findable.
    """

    def __init__(self, count: int, tokens_per_block: int, *, reuse: bool) -> None:
        self.count = count
        self.tokens_per_block = tokens_per_block
        self.reuse = reuse
        self._blocks = [_Block() for _ in range(count)]
        self._fresh = list(range(count - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._by_key: dict[BlockKey, int] = {}
        self._next_prefix = 0
        self.looked_up = 0
        self.reused = 0

    @property
    def free(self) -> int:
        """Blocks that can be handed out, findable ones included."""
        return len(self._fresh) + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks that some request holds."""
        return self.count - self.free

    def blocks_for(self, tokens: int) -> int:
        """Blocks that ``tokens`` tokens need."""
        return -(-tokens // self.tokens_per_block)

    def match(self, tokens: Sequence[int]) -> Match:
        """The longest cached prefix of ``tokens`` in full blocks.

        At least one token is left over, since its logits have to be computed.
        """
        found: list[int] = []
        prefix = _ROOT
        if self.reuse:
            size = self.tokens_per_block
            for start in range(0, len(tokens) - size, size):
                block = self._by_key.get((prefix, tuple(tokens[start : start + size])))
                if block is None:
                    break
                found.append(block)
                identity = self._blocks[block].prefix
                assert identity is not None
                prefix = identity
        return Match(tuple(found), prefix)

    def idle_among(self, blocks: Sequence[int]) -> int:
        """How many of ``blocks`` count as free now, and would not once they are held."""
        return sum(1 for block in blocks if self._blocks[block].holders == 0)

    def hold(self, blocks: Sequence[int]) -> None:
        """Add a holder to cached ``blocks``."""
        for block in blocks:
            state = self._blocks[block]
            if state.holders == 0:
                del self._idle[block]
            state.holders += 1

    def take(self) -> int:
        """A block nobody holds, with one holder.

        Raises:
            OutOfBlocksError: all are held.
        """
        if self._fresh:
            block = self._fresh.pop()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
        else:
            raise OutOfBlocksError
        self._blocks[block].holders = 1
        self._blocks[block].drafted = False
        return block

    def release(self, blocks: Sequence[int]) -> None:
        """Take one holder off each block; the last tokens' blocks become reusable first."""
        for block in reversed(blocks):
            state = self._blocks[block]
            state.holders -= 1
            if state.holders == 0:
                if state.key is None:
                    self._fresh.append(block)
                else:
                    self._idle[block] = None

    def remember(self, block: int, prefix: int, tokens: Sequence[int]) -> int:
        """Make a full ``block`` findable; returns the prefix identity after it.

        Where an equal block is known already, the known one stays and its identity counts.
        """
        if not self.reuse:
            return _ROOT
        key = (prefix, tuple(tokens))
        known = self._by_key.get(key)
        if known is not None:
            identity = self._blocks[known].prefix
            assert identity is not None
            return identity
        state = self._blocks[block]
        state.key = key
        state.prefix = self._next_prefix
        self._next_prefix += 1
        self._by_key[key] = block
        return state.prefix

    def mark_drafted(self, block: int) -> None:
        """The draft model's cache holds this block's tokens too."""
        self._blocks[block].drafted = True

    def drafted_blocks(self, blocks: Sequence[int]) -> int:
        """How many of ``blocks``, from the first on, the draft model's cache holds as well."""
        for count, block in enumerate(blocks):
            if not self._blocks[block].drafted:
                return count
        return len(blocks)

    def _forget(self, block: int) -> None:
        state = self._blocks[block]
        if state.key is not None:
            del self._by_key[state.key]
        state.key = None
        state.prefix = None
