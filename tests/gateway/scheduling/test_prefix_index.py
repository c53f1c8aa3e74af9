"""What an engine's cache is believed to hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from toolkit.gateway.scheduling.prefixes import PrefixIndex, block_hashes

prompts = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=6).map(
        lambda blocks: block_hashes(blocks, block=1)
    ),
    max_size=40,
)


@given(prompts=prompts, size=st.integers(1, 12))
def test_bisection_finds_what_walking_would(prompts: list[tuple[int, ...]], size: int) -> None:
    index = PrefixIndex(size)
    for prompt in prompts:
        index.touch(prompt)
        assert len(index) <= size
        for other in prompts:
            walked = 0
            while walked < len(other) and other[walked] in index._held:
                walked += 1
            assert index.match(other) == walked


def test_the_longest_unused_goes_first_and_from_its_end() -> None:
    index = PrefixIndex(4)
    old, new = block_hashes([1, 2, 3], 1), block_hashes([7, 8], 1)
    index.touch(old)
    index.touch(new)
    assert index.match(old) == 2
    index.touch(old)
    assert (index.match(old), index.match(new)) == (3, 1)
    index.clear()
    assert index.match(old) == 0
