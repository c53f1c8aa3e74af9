"""The tensors that clients see, as recorded in ``contracts/*.json`` with their sources.

Rendering and checking both read these tables, so that they cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import TypeAdapter

Direction = Literal["input", "output"]


@dataclass(frozen=True)
class TensorContract:
    """One tensor: Triton's type name, dims without the batch dimension.

    ``origin`` says whose name it is, ``maps_to`` the public tensor behind an alias.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool
    origin: str
    maps_to: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Contract:
    """All tensors of one model."""

    name: str
    max_batch_size: int
    decoupled: bool
    sources: tuple[str, ...]
    inputs: tuple[TensorContract, ...]
    outputs: tuple[TensorContract, ...]

    def tensors(self, direction: Direction) -> tuple[TensorContract, ...]:
        """Inputs or outputs."""
        return self.inputs if direction == "input" else self.outputs


@cache
def load_contract(name: Literal["public", "llmapi"]) -> Contract:
    """``public``: what the deployment's model speaks; ``llmapi``: what its alias does."""
    file = resources.files("toolkit.repository") / "contracts" / f"{name}.json"
    return TypeAdapter(Contract).validate_json(file.read_bytes())
