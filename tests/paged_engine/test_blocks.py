"""The books of the paged KV cache."""

from __future__ import annotations

import pytest
from paged_engine.blocks import BlockPool, OutOfBlocksError


def fill(pool: BlockPool, tokens: list[int]) -> list[int]:
    """Blocks of a finished request over ``tokens``, remembered and released."""
    match = pool.match(tokens)
    pool.hold(match.blocks)
    table, prefix = list(match.blocks), match.prefix
    size = pool.tokens_per_block
    for start in range(len(table) * size, len(tokens), size):
        table.append(pool.take())
        piece = tokens[start : start + size]
        if len(piece) == size:
            prefix = pool.remember(table[-1], prefix, piece)
    pool.release(table)
    return table


def test_a_prefix_is_found_in_whole_blocks_and_leaves_a_token_to_compute() -> None:
    pool = BlockPool(8, 4, reuse=True)
    table = fill(pool, list(range(8)))
    assert pool.match(list(range(8))).blocks == tuple(table[:1])
    assert pool.match(list(range(9))).blocks == tuple(table[:2])
    assert pool.match([0, 1, 2, 9, 4, 5]).blocks == ()


def test_equal_blocks_after_different_beginnings_are_told_apart() -> None:
    pool = BlockPool(8, 2, reuse=True)
    first = fill(pool, [1, 1, 7, 7, 0])
    second = fill(pool, [2, 2, 7, 7, 0])
    assert pool.match([1, 1, 7, 7, 0]).blocks == tuple(first[:2])
    assert pool.match([2, 2, 7, 7, 0]).blocks == tuple(second[:2])


def test_the_longest_unused_end_is_forgotten_first() -> None:
    pool = BlockPool(4, 2, reuse=True)
    old = fill(pool, [1, 1, 2, 2])
    fill(pool, [3, 3, 4, 4])
    pool.take()
    assert pool.match([1, 1, 2, 2, 0]).blocks == tuple(old[:1]), "the end goes before the start"
    pool.take()
    assert pool.match([1, 1, 2, 2, 0]).blocks == ()
    assert len(pool.match([3, 3, 4, 4, 0]).blocks) == 2


def test_held_blocks_are_never_handed_out() -> None:
    pool = BlockPool(3, 2, reuse=True)
    fill(pool, [1, 1, 2])
    match = pool.match([1, 1, 2])
    pool.hold(match.blocks)
    taken = [pool.take(), pool.take()]
    assert set(taken).isdisjoint(match.blocks)
    with pytest.raises(OutOfBlocksError):
        pool.take()


def test_shared_blocks_are_free_only_when_the_last_holder_leaves() -> None:
    pool = BlockPool(4, 2, reuse=True)
    fill(pool, [1, 1, 2])
    match = pool.match([1, 1, 2])
    assert pool.idle_among(match.blocks) == 1
    pool.hold(match.blocks)
    pool.hold(match.blocks)
    pool.release(match.blocks)
    assert pool.used == 1
    pool.release(match.blocks)
    assert pool.used == 0


def test_a_block_used_again_is_not_the_drafts_any_more() -> None:
    pool = BlockPool(2, 2, reuse=True)
    first = pool.take()
    pool.mark_drafted(first)
    assert pool.drafted_blocks([first]) == 1
    pool.release([first])
    assert pool.drafted_blocks([pool.take(), pool.take()]) == 0


def test_without_reuse_nothing_stays() -> None:
    pool = BlockPool(4, 2, reuse=False)
    fill(pool, [1, 1, 2, 2])
    assert pool.match([1, 1, 2, 2, 0]).blocks == ()
    assert pool.free == 4
