"""Rotary position embedding: its base and how it is stretched to longer contexts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from toolkit.errors import SpecError

DEFAULT_THETA = 10000.0
"""What a config without a base means, in transformers as in TensorRT-LLM."""


@dataclass(frozen=True)
class LinearRope:
    """Positions are divided by ``factor``."""

    factor: float


@dataclass(frozen=True)
class Llama3Rope:
    """Llama 3.1: long wavelengths divided by ``factor``, short ones kept, a ramp between.

    ``original_max_position`` is in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True)
class YarnRope:
    """YaRN (arXiv 2309.00071); ``attention_factor`` None means 0.1 ln(factor) + 1."""

    factor: float
    original_max_position: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None


@dataclass(frozen=True)
class OtherRope:
    """A method that nothing here computes; ``name`` is the config's word for it."""

    name: str


RopeScaling: TypeAlias = LinearRope | Llama3Rope | YarnRope | OtherRope


def read_rope(config: Mapping[str, Any], where: str) -> tuple[float, RopeScaling | None]:
    """Base and scaling of a config.json, in the layout of transformers 5 or older.

    transformers 5 has one section ``rope_parameters``; before, ``rope_theta`` and
    ``rope_scaling`` stood apart, and the type was called ``type`` or ``rope_type``.

    Raises:
        SpecError: a scaling lacks one of its numbers.
    """
    section = config.get("rope_parameters")
    section = section if isinstance(section, Mapping) else {}
    old = config.get("rope_scaling")
    scaling = {**(old if isinstance(old, Mapping) else {}), **section}
    theta = scaling.get("rope_theta", config.get("rope_theta"))
    numbers = _Numbers(config, scaling, where)
    base = DEFAULT_THETA if theta is None else numbers.convert("rope_theta", theta)
    return base, _scaling(scaling, numbers)


def _scaling(scaling: Mapping[str, Any], numbers: _Numbers) -> RopeScaling | None:
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        # A section per layer type (Gemma 3) has no type of its own.
        nested = any(isinstance(value, Mapping) for value in scaling.values())
        return OtherRope("per layer type") if nested else None
    if kind == "linear":
        return LinearRope(numbers.needed("factor"))
    if kind == "llama3":
        return Llama3Rope(
            factor=numbers.needed("factor"),
            low_freq_factor=numbers.needed("low_freq_factor"),
            high_freq_factor=numbers.needed("high_freq_factor"),
            original_max_position=numbers.original_context(),
        )
    if kind == "yarn" and not scaling.get("mscale"):
        return YarnRope(
            factor=numbers.needed("factor"),
            original_max_position=numbers.original_context(),
            beta_fast=numbers.optional("beta_fast") or 32.0,
            beta_slow=numbers.optional("beta_slow") or 1.0,
            attention_factor=numbers.optional("attention_factor"),
        )
    return OtherRope(str(kind))


@dataclass(frozen=True)
class _Numbers:
    config: Mapping[str, Any]
    scaling: Mapping[str, Any]
    where: str

    def convert(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise SpecError(f"{name} is {value!r}, expected a positive number", where=self.where)
        return float(value)

    def needed(self, name: str) -> float:
        if self.scaling.get(name) is None:
            raise SpecError(f"the rope scaling lacks {name}", where=self.where)
        return self.convert(name, self.scaling[name])

    def optional(self, name: str) -> float | None:
        value = self.scaling.get(name)
        return None if value is None else self.convert(name, value)

    def original_context(self) -> int:
        name = "original_max_position_embeddings"
        value = self.config.get(name) or self.scaling.get(name)
        value = value or self.config.get("max_position_embeddings")
        if value is None:
            raise SpecError(f"the rope scaling lacks {name}", where=self.where)
        return int(self.convert(name, value))
