"""What every part of the deployment file has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


def as_tuple(value: Any) -> Any:
    """A list of the file as a tuple; anything else as it is, for the type check to refuse."""
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
"""A list of texts in the file, a tuple here."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Annotates a type with how its values are written, for error messages."""

    text: str


def refuse(message: str, *, fields: Sequence[str], hint: str) -> PydanticCustomError:
    """An error about several fields at once.

    Args:
        message: What does not fit together.
        fields: Dotted names below the model that raises it, the one to look at first in front;
            the error points at the first that the file holds.
        hint: What to change.
    """
    return PydanticCustomError(
        "rule",
        "{reason}",
        {"reason": message, "fields": list(fields), "hint": hint},
    )


class Section(BaseModel):
    """A part of the deployment file: immutable, no unknown keys, no conversions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: Any) -> Any:
        # A section whose lines are all commented out reads as null: it means its defaults.
        return {} if data is None else data
