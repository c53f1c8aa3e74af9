"""Prompts for a trace that tells no texts: equal blocks of it become equal text."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache

from toolkit.bench.vocabulary import Vocabulary

_KEPT_BLOCKS = 4096


class BlockText:
    """Makes prompts of blocks, each of which always has the same words.

    Every word is one token wherever it stands but in front, so that prompts that begin with
    the same blocks begin with the same tokens, and a server with a prefix cache finds them.

    Args:
        vocabulary: Makes the words.
        dice: Gives the random generator that belongs to a name.
        block_tokens: Tokens of a block.
    """

    def __init__(
        self, vocabulary: Vocabulary, dice: Callable[..., random.Random], block_tokens: int
    ) -> None:
        self._vocabulary, self._dice, self._size = vocabulary, dice, block_tokens
        self._block = lru_cache(_KEPT_BLOCKS)(self._make_block)
        self._excess = lru_cache(_KEPT_BLOCKS)(self._count_excess)

    def prompt(self, number: int, blocks: Sequence[int], tokens: int) -> str:
        """The text of ``tokens`` tokens that begins with ``blocks``.

        The last block is cut where the prompt ends; what no block covers is the prompt's own.
        """
        words: list[str] = []
        for block in blocks[: -(-tokens // self._size)]:
            words += self._block(block)
        if len(words) < tokens:
            words += self._vocabulary.words(tokens - len(words), self._dice("own", number))
        # What a tokenizer puts in front counts, and a first word may be more than one token.
        keep = tokens - self._excess(words[0])
        return " ".join(words[: max(1, keep)])

    def _make_block(self, block: int) -> Sequence[str]:
        return self._vocabulary.words(self._size, self._dice("block", block))

    def _count_excess(self, first: str) -> int:
        return self._vocabulary.count(first) - 1
