"""The heap behaves as a sorted list, and keeps no more dead entries than living ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from toolkit.gateway.scheduling.lazyheap import LazyHeap

moves = st.lists(st.tuples(st.integers(0, 30), st.floats(0, 10) | st.none()), max_size=200)


@given(moves=moves, count=st.integers(0, 8))
def test_it_is_a_sorted_list(moves: list[tuple[int, float | None]], count: int) -> None:
    heap: LazyHeap[str] = LazyHeap()
    truth: dict[str, tuple[float, int]] = {}
    for serial, (number, key) in enumerate(moves):
        name = str(number)
        if key is None:
            heap.discard(name)
            truth.pop(name, None)
        else:
            heap.push(key, name, name)
            truth[name] = (key, serial)
        order = sorted(truth, key=truth.__getitem__)
        assert len(heap) == len(order)
        assert heap.smallest(count) == order[:count]
        first = heap.first()
        assert (first[1] if first else None) == (order[0] if order else None)


def test_dead_entries_do_not_pile_up() -> None:
    heap: LazyHeap[int] = LazyHeap()
    heap.push(-1.0, "first", -1)
    for k in range(10_000):
        heap.push(float(k), str(k), k)
        heap.discard(str(k))
    assert len(heap._heap) < 100
