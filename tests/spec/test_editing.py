"""A field is changed in the text of a deployment file, and nothing beside it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from toolkit.spec.editing import UnsoundError, remove, set_value

TEXT = """\
# head

name: chat  # who
engine:
  # which one
  runtime: tensorrt   # why
  limits: {max_batch_size: 8, max_seq_len: 2048}  # sizes
  # of engines
  # only
  tensorrt:
    multiple_profiles: true

  # kept
  dtype: auto
serving:
  gpus:
    - 0
    - 1
"""


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_a_value_is_replaced_and_its_comment_stays() -> None:
    changed = set_value(TEXT, ("engine", "runtime"), "pytorch")
    assert changed == TEXT.replace("runtime: tensorrt ", "runtime: pytorch ")


def test_a_value_in_braces_is_replaced() -> None:
    changed = set_value(TEXT, ("engine", "limits", "max_batch_size"), "16")
    assert changed == TEXT.replace("max_batch_size: 8", "max_batch_size: 16")


def test_a_new_field_stands_behind_the_first_of_its_section() -> None:
    changed = set_value(TEXT, ("engine", "release"), "1.2.1")
    assert changed == TEXT.replace("# why\n", "# why\n  release: 1.2.1\n")
    changed = set_value(TEXT, ("engine", "limits", "max_num_tokens"), "64")
    assert "max_seq_len: 2048, max_num_tokens: 64}  # sizes" in changed


def test_a_section_becomes_one_value() -> None:
    changed = set_value(TEXT, ("engine", "tensorrt"), "{workers: 2}")
    assert yaml.safe_load(changed)["engine"]["tensorrt"] == {"workers": 2}
    assert "  # kept\n  dtype: auto\n" in changed
    changed = set_value(TEXT, ("serving", "gpus"), "[3]")
    assert yaml.safe_load(changed)["serving"] == {"gpus": [3]}


def test_an_empty_value_is_filled() -> None:
    assert set_value("a:\nb: 1\n", ("a",), "2") == "a: 2\nb: 1\n"


def test_a_removed_field_takes_its_own_comments_along() -> None:
    changed = remove(TEXT, ("engine", "tensorrt"))
    assert set(lines(TEXT)) - set(lines(changed)) == {
        "  # of engines",
        "  # only",
        "  tensorrt:",
        "    multiple_profiles: true",
    }
    assert "  # kept" in changed


def test_an_emptied_section_goes_too() -> None:
    changed = remove(TEXT, ("engine", "tensorrt", "multiple_profiles"))
    assert "tensorrt" not in yaml.safe_load(changed)["engine"]


@pytest.mark.parametrize(
    ("key", "left"),
    [("a", "x: {b: 2, c: 3}\n"), ("b", "x: {a: 1, c: 3}\n"), ("c", "x: {a: 1, b: 2}\n")],
)
def test_a_field_in_braces_takes_one_comma(key: str, left: str) -> None:
    assert remove("x: {a: 1, b: 2, c: 3}\n", ("x", key)) == left


def test_what_is_not_there_is_not_removed() -> None:
    with pytest.raises(KeyError):
        remove(TEXT, ("engine", "speculation"))
    with pytest.raises(KeyError):
        set_value(TEXT, ("nowhere", "field"), "1")


@pytest.mark.parametrize("text", ["a: &x {b: 1}\nc: *x\n", "- a\n", "a: 1"])
def test_what_one_change_would_carry_on_is_left_alone(text: str) -> None:
    with pytest.raises(UnsoundError):
        set_value(text, ("new",), "1")


KEYS = st.sampled_from(["a", "b", "c"])
DATA = st.dictionaries(
    KEYS,
    st.recursive(
        st.integers(0, 9) | st.lists(st.integers(0, 9), min_size=1, max_size=2),
        lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3),
        max_leaves=8,
    ),
    min_size=2,
)


def paths(data: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(data, dict):
        return []
    return [p for key, value in data.items() for p in ((*above, key), *paths(value, (*above, key)))]


def without(data: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    *above, last = path
    section = data
    for step in above:
        section = section[step]
    del section[last]
    return without(data, path[:-1]) if above and not section else data


@given(DATA, st.data(), st.sampled_from([None, False, True]))
def test_any_field_of_any_layout_is_changed_alone(
    data: dict[str, Any], draw: st.DataObject, flow: bool | None
) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow, sort_keys=False)
    path = draw.draw(st.sampled_from(paths(data)))
    *above, last = path
    changed = yaml.safe_load(set_value(text, path, "77"))
    section = changed
    for step in above:
        section = section[step]
    assert section.pop(last) == 77
    removed = yaml.safe_load(remove(text, path))
    assert removed == without(yaml.safe_load(text), path)
