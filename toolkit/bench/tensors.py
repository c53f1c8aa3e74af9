"""One-element tensors in Triton's wire format: little-endian, texts with a length before them."""

from __future__ import annotations

import struct
from typing import Any

_FORMATS = {
    "BOOL": "<?",
    "INT8": "<b",
    "INT16": "<h",
    "INT32": "<i",
    "INT64": "<q",
    "UINT8": "<B",
    "UINT16": "<H",
    "UINT32": "<I",
    "UINT64": "<Q",
    "FP32": "<f",
    "FP64": "<d",
}


def encode(value: Any, datatype: str) -> bytes:
    """``value`` as a raw tensor of one element.

    Raises:
        ValueError: the type is unknown, or the value does not fit it.
    """
    if datatype == "BYTES":
        data = str(value).encode()
        return struct.pack("<I", len(data)) + data
    try:
        return struct.pack(_FORMATS[datatype], value)
    except (KeyError, struct.error) as error:
        raise ValueError(f"{value!r} is no {datatype}") from error


def decode(raw: bytes, datatype: str) -> Any:
    """The first element of a raw tensor; None if it is empty or of an unknown type."""
    if datatype == "BYTES":
        return text(raw)
    form = _FORMATS.get(datatype)
    if form is None or len(raw) < struct.calcsize(form):
        return None
    return struct.unpack_from(form, raw)[0]


def text(raw: bytes) -> str:
    """The first text of a raw BYTES tensor; bytes that are not UTF-8 become U+FFFD."""
    return raw[4 : 4 + int.from_bytes(raw[:4], "little")].decode(errors="replace")
