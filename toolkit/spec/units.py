"""Sizes and durations as people write them: ``4GiB``, ``500ms``.

A :data:`Size` is an ``int`` of bytes, a :data:`Duration` a ``float`` of seconds; both parse
the written form and keep the number, so that the rest of the code never sees a unit.
"""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from toolkit.spec.section import Looks

_SIZE_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_MAX_SIZE = 2**63 - 1
_Number = TypeVar("_Number", int, float)
_DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZE = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s?([KMGT]i?B|B)", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s?(us|ms|s|min|m|h)")


def parse_size(value: Any) -> int:
    """Bytes in ``value``: a whole number of bytes or a text such as ``4GiB``.

    Raises:
        ValueError: not a size.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a size is written like 512MiB, 4GiB or 10GB")  # noqa: TRY004
    if isinstance(value, int):
        return _in_range(value)
    match = _SIZE.fullmatch(value.strip())
    if not match:
        raise ValueError(f"{value!r} is not a size; write it like 512MiB, 4GiB or 10GB")
    return _in_range(round(Fraction(match[1]) * _SIZE_UNITS[match[2].upper()]))


def _in_range(size: int) -> int:
    if not 0 <= size <= _MAX_SIZE:
        raise ValueError("a size is between 0 and 8388607TiB")
    return size


def parse_duration(value: Any) -> float:
    """Seconds in ``value``: a number of seconds or a text such as ``500ms``.

    Raises:
        ValueError: not a duration.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a duration is written like 500ms, 30s or 2m")  # noqa: TRY004
    if not isinstance(value, str):
        if not 0 <= value <= sys.float_info.max:
            raise ValueError("a duration cannot be negative or infinite")
        return float(value)
    match = _DURATION.fullmatch(value.strip())
    if not match:
        raise ValueError(f"{value!r} is not a duration; write it like 500ms, 30s or 2m")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def format_size(size: float) -> str:
    """``size`` bytes for people: ``163.0 MB``."""
    digits = 0
    for unit in ("B", "KB", "MB", "GB"):
        if round(abs(size), digits) < 1000:
            return f"{size:.{digits}f} {unit}"
        size /= 1000
        digits = 1
    return f"{size:.1f} TB"


def format_duration(seconds: float) -> str:
    """``seconds`` for people: ``350 ms``, ``12.3 s``, ``4m08s``, ``1h04m``."""
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def _exact_size(size: int) -> int | str:
    for unit in ("TIB", "GIB", "MIB"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit[0]}iB"
    return size


def _positive_size(value: Any) -> int:
    return _above_zero(parse_size(value))


def _positive_duration(value: Any) -> float:
    return _above_zero(parse_duration(value))


def _above_zero(value: _Number) -> _Number:
    if value == 0:
        raise ValueError("has to be above 0")
    return value


_NOT_ZERO = {"minimum": "", "exclusiveMinimum": r"(?=.*[1-9])"}


def _size_schema(limit: str) -> WithJsonSchema:
    pattern = (
        rf"^{_NOT_ZERO[limit]}" + r"\s*[0-9]{1,30}(\.[0-9]{1,30})?\s?([KMGTkmgt][Ii]?)?[Bb]\s*$"
    )
    kinds = [
        {"type": "integer", limit: 0, "description": "bytes"},
        {"type": "string", "pattern": pattern},
    ]
    return WithJsonSchema({"anyOf": kinds, "examples": ["4GiB", "512MiB"]})


def _duration_schema(limit: str) -> WithJsonSchema:
    pattern = rf"^{_NOT_ZERO[limit]}" + r"\s*[0-9]{1,30}(\.[0-9]{1,30})?\s?(us|ms|s|min|m|h)\s*$"
    kinds = [
        {"type": "number", limit: 0, "description": "seconds"},
        {"type": "string", "pattern": pattern},
    ]
    return WithJsonSchema({"anyOf": kinds, "examples": ["500ms", "30s"]})


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Looks("a size such as 4GiB, 512MiB or 10GB"),
    PlainSerializer(_exact_size, return_type=int | str),
    _size_schema("minimum"),
]
"""Bytes, written as a whole number or with a unit (``4GiB``, ``10GB``)."""

PositiveSize = Annotated[
    int,
    BeforeValidator(_positive_size),
    Looks("a size above 0, such as 4GiB, 512MiB or 10GB"),
    PlainSerializer(_exact_size, return_type=int | str),
    _size_schema("exclusiveMinimum"),
]
"""As :data:`Size`, above 0."""

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Looks("a duration such as 500ms, 30s or 2m"),
    _duration_schema("minimum"),
]
"""Seconds, written as a number or with a unit (``500ms``, ``2m``)."""

PositiveDuration = Annotated[
    float,
    BeforeValidator(_positive_duration),
    Looks("a duration above 0, such as 500ms, 30s or 2m"),
    _duration_schema("exclusiveMinimum"),
]
"""As :data:`Duration`, above 0."""
