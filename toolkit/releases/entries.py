"""What every entry of a release table has in common, and how entries are looked up by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict

from toolkit.errors import UnsupportedError

Runtime: TypeAlias = Literal["tensorrt", "pytorch"]
Checked: TypeAlias = Literal["tag", "documentation", "near"]
"""How a section was compared with upstream.

tag: read in the sources of the release's tag, or in the documentation generated from it.
documentation: read in the release's pages only, which may lag behind its sources.
near: read at another commit, named in the source; load it once before relying on it.
"""


class Entry(BaseModel):
    """A part of a table: immutable, without unknown keys, without conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


def lookup(entries: Iterable[T], name: str, *, what: str, owner: str, where: str) -> T:
    """The entry called ``name``.

    Args:
        entries: Where to look.
        name: What the entry is called.
        what: What is looked for, such as ``trtllm-build flag``.
        owner: What would have it, such as ``TensorRT-LLM 1.2.1``.
        where: The error's place.

    Raises:
        UnsupportedError: none is; the hint names the most similar one.
    """
    known = {entry.name: entry for entry in entries}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    raise UnsupportedError(
        f"{owner} has no {what} {name}",
        where=where,
        hint=f"did you mean {near[0]}?" if near else None,
    )
