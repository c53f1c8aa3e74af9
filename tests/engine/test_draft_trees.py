"""Trees of drafts: their shape, and what an engine with heads takes of them."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.engine.tensorrt.trees import DEFAULT, Tree, check_tree, tree_of
from toolkit.errors import UnsupportedError
from toolkit.spec.models import Eagle, Medusa

CHAIN = ("0", "0,0", "0,0,0")
UPSTREAM = (  # noqa: SIM905
    "0|0,0|1|0,1|2|0,0,0|1,0|0,2|3|0,3|4|0,4|2,0|0,5|0,0,1|5|0,6|6|0,7|0,1,0|1,1|7|0,8|0,0,2|3,0|"
    "0,9|8|9|1,0,0|0,2,0|1,2|0,0,3|4,0|2,1|0,0,4|0,0,5|0,0,0,0|0,1,1|0,0,6|0,3,0|5,0|1,3|0,0,7|"
    "0,0,8|0,0,9|6,0|0,4,0|1,4|7,0|0,1,2|2,0,0|3,1|2,2|8,0|0,5,0|1,5|1,0,1|0,2,1|9,0|0,6,0|0,0,0,1|"
    "1,6|0,7,0"
).split("|")
"""EagleModule::mDefaultEagleChoices (cpp/include/tensorrt_llm/runtime/eagleModule.h)."""


def test_the_default_tree_has_the_shape_of_upstream_s() -> None:
    assert tree_of(UPSTREAM) == DEFAULT


@pytest.mark.parametrize(
    ("branches", "shape"),
    [
        (("0",), Tree(1, 1, 1)),
        (CHAIN, Tree(3, 3, 1)),
        (("0", "1", "2", "0,0", "1,0", "1,1"), Tree(6, 2, 2)),
    ],
)
def test_shapes(branches: tuple[str, ...], shape: Tree) -> None:
    assert tree_of(branches) == shape


@pytest.mark.parametrize(
    ("branches", "why"),
    [
        (("0", "0,x"), "'0,x' is no branch"),
        (("",), "'' is no branch"),
        (("0", "0"), "branch 0 comes twice"),
        (("0", "1,0"), "branch 1 is missing"),
    ],
)
def test_what_is_no_tree_is_refused(branches: tuple[str, ...], why: str) -> None:
    with pytest.raises(UnsupportedError, match=why) as caught:
        tree_of(branches)
    assert caught.value.where == "engine.speculation.choices"


@pytest.mark.parametrize(
    "chosen",
    [
        Eagle(source="./e"),
        Eagle(source="./e", num_layers=3, max_draft_len=3, choices=CHAIN),
        Medusa(source="./m"),
        Medusa(source="./m", num_heads=5, choices=CHAIN, max_draft_len=3),
    ],
)
def test_trees_that_fit(chosen: Any) -> None:
    check_tree(chosen)


@pytest.mark.parametrize(
    ("chosen", "field", "wanted"),
    [
        (Eagle(source="./e", num_layers=3), "num_layers", 4),
        (Eagle(source="./e", num_layers=5), "num_layers", 4),
        (Eagle(source="./e", choices=CHAIN), "num_layers", 3),
        (Eagle(source="./e", max_draft_len=62), "max_draft_len", 63),
        (Eagle(source="./e", max_non_leaves_per_layer=9), "max_non_leaves_per_layer", 10),
        (Medusa(source="./m", num_heads=3), "num_heads", 4),
        (Medusa(source="./m", choices=CHAIN, max_draft_len=2), "max_draft_len", 3),
    ],
)
def test_trees_that_fail_at_every_request_are_refused(chosen: Any, field: str, wanted: int) -> None:
    with pytest.raises(UnsupportedError) as caught:
        check_tree(chosen)
    assert caught.value.where == f"engine.speculation.{field}"
    assert f"set {field}: {wanted}" in (caught.value.hint or "")
