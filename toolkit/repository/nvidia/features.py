"""Inputs of the public contract that only some deployments have (``contracts/features.json``)."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict

from toolkit.repository.contract import TensorContract
from toolkit.spec.models import Deployment, DraftModel

Feature = Literal["lora", "guided_decoding", "drafts"]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: tuple[str, ...]
    features: dict[Feature, tuple[TensorContract, ...]]


@cache
def feature_inputs() -> dict[Feature, tuple[TensorContract, ...]]:
    """All of them, by what brings them."""
    file = resources.files("toolkit.repository") / "contracts" / "features.json"
    return _File.model_validate_json(file.read_bytes()).features


def features_of(deployment: Deployment, runtime: str) -> tuple[Feature, ...]:
    """What ``deployment`` brings. Drafts are the requests' business on the engine path only."""
    engine = deployment.engine
    found: list[Feature] = []
    if engine.lora is not None:
        found.append("lora")
    if engine.guided_decoding is not None:
        found.append("guided_decoding")
    if runtime == "tensorrt" and isinstance(engine.speculation, DraftModel):
        found.append("drafts")
    return tuple(found)


def inputs_of(features: tuple[Feature, ...]) -> tuple[TensorContract, ...]:
    """The inputs that ``features`` add."""
    return tuple(each for name in features for each in feature_inputs()[name])
