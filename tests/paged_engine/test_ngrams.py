"""N-gram drafts: what followed the newest tokens the last time they stood together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from paged_engine.proposers import _NGramIndex


def expected(tokens: list[int], longest: int, count: int) -> list[int]:
    for size in range(min(longest, len(tokens)), 0, -1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                return tokens[end : end + count]
    return []


@given(
    tokens=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    growth=st.lists(st.integers(1, 4), max_size=30),
    longest=st.integers(1, 3),
    count=st.integers(1, 4),
)
def test_the_latest_earlier_place_of_the_longest_ngram(
    tokens: list[int], growth: list[int], longest: int, count: int
) -> None:
    """However the sequence grew: token by token, or by several accepted drafts at once."""
    index, length = _NGramIndex(longest), 1
    for more in (0, *growth):
        length = min(length + more, len(tokens))
        known = tokens[:length]
        assert index.after(known, count) == expected(known, longest, count)
