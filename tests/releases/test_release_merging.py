"""Tables that state their differences from another one."""

from __future__ import annotations

import pytest

from toolkit.releases.merging import merged

BELOW: list[dict[str, object]] = [
    {"name": "a", "kind": "int", "default": 1},
    {"name": "b", "kind": "text"},
]


def test_an_entry_of_the_same_name_is_changed_where_it_stands() -> None:
    assert merged(BELOW, [{"name": "a", "default": 2}]) == [
        {"name": "a", "kind": "int", "default": 2},
        {"name": "b", "kind": "text"},
    ]


def test_a_new_entry_is_appended_and_a_dropped_one_is_gone() -> None:
    assert merged(BELOW, [{"name": "c"}, {"name": "a", "$drop": True}]) == [
        {"name": "b", "kind": "text"},
        {"name": "c"},
    ]


def test_what_is_below_is_not_changed() -> None:
    before = [dict(entry) for entry in BELOW]
    merged(BELOW, [{"name": "a", "default": 2}, {"name": "b", "$drop": True}])
    assert before == BELOW


def test_dropping_what_is_not_there_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="z is dropped but not there"):
        merged(BELOW, [{"name": "z", "$drop": True}])


def test_objects_merge_key_by_key_and_other_values_replace() -> None:
    assert merged({"a": {"x": 1, "y": 2}, "b": [1, 2]}, {"a": {"y": 3}, "b": [3]}) == {
        "a": {"x": 1, "y": 3},
        "b": [3],
    }
    assert merged({"a": 1}, {"a": None}) == {"a": None}


def test_a_whole_list_or_object_may_be_replaced() -> None:
    assert merged(BELOW, {"$replace": []}) == []
    assert merged({"a": {"x": 1}}, {"a": {"$replace": {"y": 2}}}) == {"a": {"y": 2}}


@pytest.mark.parametrize("marked", [{"$replace": [], "name": "a"}, [{"name": "a", "$drop": True}]])
def test_a_marker_never_becomes_data(marked: object) -> None:
    with pytest.raises(ValueError, match="nothing lies below it"):
        merged(None, marked)


def test_nested_lists_of_entries_merge_by_name_too() -> None:
    below = [{"name": "class", "fields": [{"name": "x", "default": 1}, {"name": "y"}]}]
    above = [{"name": "class", "fields": [{"name": "y", "$drop": True}, {"name": "z"}]}]
    assert merged(below, above) == [
        {"name": "class", "fields": [{"name": "x", "default": 1}, {"name": "z"}]}
    ]
