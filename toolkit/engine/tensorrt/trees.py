"""Trees of draft tokens, and which of them an engine with heads takes.

The server compares the tree with the engine at every request, not when it loads. The rules are
those of ``initTensorsFromChoices`` and ``createNewDecoderRequests`` in TensorRT-LLM's C++ runtime
(``runtime/utils/speculativeChoicesUtils.cpp``): no more nodes than drafts, each node's parent in
the tree, an EAGLE tree exactly as deep as its engine and with no more nodes to continue on a level
than it was built for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.engine.nvidia.refusal import refusal
from toolkit.spec.models import Eagle, Medusa

_BRANCH = re.compile(r"\d+(,\d+)*")
_CHOICES = "engine.speculation.choices"


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree's shape: nodes without the root, levels, and the most nodes with children on one."""

    nodes: int
    depth: int
    widest: int


DEFAULT = Tree(nodes=63, depth=4, widest=10)
"""The tree that TensorRT-LLM takes where none is given (runtime/eagleModule.h)."""


def tree_of(branches: Iterable[str]) -> Tree:
    """The shape of a tree whose branches are ranks with commas between them.

    Raises:
        UnsupportedError: a branch is none, or comes twice, or begins with one that is not there.
    """
    paths: set[tuple[int, ...]] = set()
    for branch in branches:
        if not _BRANCH.fullmatch(branch):
            raise refusal(_CHOICES, f"{branch!r} is no branch", 'write ranks, such as "0,1"')
        path = tuple(map(int, branch.split(",")))
        if path in paths:
            raise refusal(_CHOICES, f"branch {branch} comes twice", "remove one of them")
        paths.add(path)
    for path in sorted(paths):
        if len(path) > 1 and path[:-1] not in paths:
            parent = ",".join(map(str, path[:-1]))
            raise refusal(_CHOICES, f"branch {parent} is missing", "add it, or what begins with it")
    continued = {path[:-1] for path in paths}
    levels = Counter(map(len, continued))
    return Tree(len(paths), max(map(len, paths)), max(levels.values()))


def check_tree(chosen: Eagle | Medusa) -> None:
    """Hold the tree that will be served against what the engine is built for.

    Raises:
        UnsupportedError: every request would fail.
    """
    tree = tree_of(chosen.choices) if chosen.choices else DEFAULT
    whose = "" if chosen.choices else "TensorRT-LLM's default "
    if isinstance(chosen, Eagle):
        _require(tree.depth == chosen.num_layers, "num_layers", tree.depth, f"{whose}tree is deep")
        _require(
            tree.widest <= chosen.max_non_leaves_per_layer,
            "max_non_leaves_per_layer",
            tree.widest,
            f"{whose}tree has nodes to continue on one level",
        )
    else:
        _require(tree.depth <= chosen.num_heads, "num_heads", tree.depth, f"{whose}tree is deep")
    _require(
        tree.nodes <= chosen.max_draft_len, "max_draft_len", tree.nodes, f"{whose}tree has nodes"
    )


def _require(fits: bool, field: str, wanted: int, what: str) -> None:
    if not fits:
        raise refusal(
            f"engine.speculation.{field}",
            f"the {what}: {wanted}",
            f"set {field}: {wanted}, or give a tree that fits under choices",
        )
