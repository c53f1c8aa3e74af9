"""Read one request's input tensors, with errors that name the field."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Read = Callable[[str], "NDArray[np.generic] | None"]
"""Gives the array of an input by name, or None where the request leaves it out."""


class FieldError(Exception):
    """A field of the request is wrong; the text starts with its name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")


class Fields:
    """Typed access to the inputs of one request."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def integer(self, name: str, *, low: int | None = None, high: int | None = None) -> int | None:
        """A whole number within ``low`` and ``high``, or None if it is not given."""
        value = self._one(name)
        if value is None:
            return None
        if not isinstance(value, np.integer):
            raise FieldError(name, "must be a whole number")
        _check_range(name, int(value), low, high)
        return int(value)

    def number(
        self, name: str, *, low: float | None = None, high: float | None = None
    ) -> float | None:
        """A finite number within ``low`` and ``high``, or None if it is not given."""
        value = self._one(name)
        if value is None:
            return None
        if not isinstance(value, np.floating | np.integer):
            raise FieldError(name, "must be a number")
        if not math.isfinite(value):
            raise FieldError(name, f"must be finite, got {float(value)}")
        _check_range(name, float(value), low, high)
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value."""
        value = self._one(name)
        if value is None:
            return default
        if not isinstance(value, np.bool_):
            raise FieldError(name, "must be true or false")
        return bool(value)

    def text(self, name: str) -> bytes | None:
        """The raw bytes of one string, or None if it is not given."""
        value = self._one(name)
        if value is None:
            return None
        if not isinstance(value, bytes):
            raise FieldError(name, "must be a string")
        return value

    def words(self, name: str, *, most: int, longest: int) -> tuple[str, ...]:
        """The non-empty strings of a list, at most ``most`` of at most ``longest`` bytes."""
        array = self._read(name)
        if array is None:
            return ()
        given = array.reshape(-1)
        if len(given) > most:
            raise FieldError(name, f"holds {len(given)} entries, at most {most} are allowed")
        words = []
        for position, value in enumerate(given):
            if not isinstance(value, bytes):
                raise FieldError(name, "must hold strings")
            if len(value) > longest:
                raise FieldError(
                    name,
                    f"entry {position} has {len(value)} bytes, at most {longest} are allowed",
                )
            if value:
                words.append(decode(name, value))
        return tuple(dict.fromkeys(words))

    def _one(self, name: str) -> np.generic | bytes | None:
        array = self._read(name)
        if array is None:
            return None
        if array.size != 1:
            raise FieldError(name, f"must hold one value, got shape {list(array.shape)}")
        value: np.generic | bytes = array.reshape(-1)[0]
        return value


def decode(name: str, value: bytes) -> str:
    """``value`` as text.

    Raises:
        FieldError: not valid UTF-8.
    """
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FieldError(name, f"is not valid UTF-8 at byte {error.start}") from None


def _check_range(name: str, value: float, low: float | None, high: float | None) -> None:
    if low is not None and value < low:
        raise FieldError(name, f"must be at least {low:g}, got {value:g}")
    if high is not None and value > high:
        raise FieldError(name, f"must be at most {high:g}, got {value:g}")
