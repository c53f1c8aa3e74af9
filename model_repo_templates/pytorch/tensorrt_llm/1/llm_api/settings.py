"""The ``engine`` section of settings.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class LlmApiSettings:
    """What model.yaml does not hold.

    Attributes:
        release: The TensorRT-LLM that model.yaml is written for.
        gpus: One list of GPU numbers for each instance, counted among those that are visible.
        adapters: Directories of the LoRA adapters by name; their order numbers them from 1.
        penalties: Whether requests may penalise tokens; speculation forbids it.
    """

    runtime: str
    release: str
    max_batch_size: int
    max_queue_size: int
    gpus: tuple[tuple[int, ...], ...] = ()
    adapters: Mapping[str, str] = field(default_factory=dict)
    guided_decoding: bool = False
    penalties: bool = True

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> LlmApiSettings:
        """Read it.

        Raises:
            ValueError: an unknown field.
        """
        unknown = sorted(set(settings) - {each.name for each in fields(cls)})
        if unknown:
            raise ValueError(f"unknown engine settings: {', '.join(unknown)}")
        gpus = tuple(tuple(each) for each in settings.get("gpus", ()))
        adapters = dict(settings.get("adapters", ()))
        return cls(**{**settings, "gpus": gpus, "adapters": adapters})
