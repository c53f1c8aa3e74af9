"""A stand-in for the compiled graph that makes every mistake with the KV cache visible.

It keeps tokens instead of keys and values, in the very slots that the block tables name, and
the next token is a hash of the whole context read back from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from paged_engine.runner import Row

VOCABULARY = 23


def next_token(context: Sequence[int]) -> int:
    """What the stand-in model says after ``context``."""
    return crc32(bytes(context)) % VOCABULARY


def continuation(prompt: Sequence[int], count: int, stop: Sequence[int] = ()) -> list[int]:
    """What plain decoding of one request alone gives."""
    context = list(prompt)
    while len(context) < len(prompt) + count:
        token = next_token(context)
        if token in stop:
            break
        context.append(token)
    return context[len(prompt) :]


class HashingRunner:
    """Implements what the engine uses of :class:`paged_engine.runner.Runner`."""

    def __init__(self, blocks: int, tokens_per_block: int, *, wrong_every: int = 0) -> None:
        self.pool = np.full((blocks, tokens_per_block), -1, np.int64)
        self.tokens_per_block = tokens_per_block
        self.pool_bytes = self.pool.nbytes
        self.largest_step = 0
        self.steps = 0
        self.tokens = 0
        self._wrong_every = wrong_every

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        self.steps += 1
        self.tokens += sum(len(row.tokens) for row in rows)
        self.largest_step = max(self.largest_step, sum(len(row.tokens) for row in rows))
        written: dict[tuple[int, int], int] = {}
        for row in rows:
            for offset, token in enumerate(row.tokens):
                slot = self._slot(row, row.past + offset)
                assert written.get(slot, token) == token, "two sequences wrote one slot"
                written[slot] = token
                self.pool[slot] = token
        logits = [self._logits(row, end) for row in rows for end in self._wanted(row)]
        return np.array(logits, np.float32).reshape(-1, VOCABULARY)

    def _slot(self, row: Row, position: int) -> tuple[int, int]:
        return row.table[position // self.tokens_per_block], position % self.tokens_per_block

    def _wanted(self, row: Row) -> range:
        end = row.past + len(row.tokens)
        return range(end - row.wanted + 1, end + 1)

    def _logits(self, row: Row, length: int) -> np.ndarray:
        context = [int(self.pool[self._slot(row, position)]) for position in range(length)]
        assert min(context) >= 0, "read a slot that nobody wrote"
        logits = np.zeros(VOCABULARY, np.float32)
        wrong = self._wrong_every and length % self._wrong_every == 0
        logits[(next_token(context) + bool(wrong)) % VOCABULARY] = 1
        return logits
