"""Are the numbers of a tensor numbers? Read in blocks, by their bits, without torch."""

from __future__ import annotations

from pathlib import Path

from toolkit.checkpoint.safetensors_file import TensorInfo

_BLOCK = 16 << 20

_NOT_FINITE = {
    "F64": ("uint64", 0x7FF0_0000_0000_0000),
    "F32": ("uint32", 0x7F80_0000),
    "BF16": ("uint16", 0x7F80),
    "F16": ("uint16", 0x7C00),
    "F8_E5M2": ("uint8", 0x7C),
    "F8_E4M3": ("uint8", 0x7F),
}
"""Bits that are all set in NaN and infinity (float8 e4m3 has no infinity, one NaN)."""


def unsound_values(path: Path, info: TensorInfo) -> str | None:
    """What is wrong with the values of tensor ``info``, or None.

    NaN and infinities are faults anywhere, and so is a matrix of nothing but zeros, which is
    what a hole in a file reads as.
    """
    import numpy as np

    if info.dtype not in _NOT_FINITE or not info.nbytes:
        return None
    dtype, mask = _NOT_FINITE[info.dtype]
    bad, nonzero = 0, False
    for begin in range(info.begin, info.end, _BLOCK):
        count = min(_BLOCK, info.end - begin)
        bits = np.memmap(path, np.uint8, "r", offset=begin, shape=(count,)).view(dtype)
        limit = np.array(mask, dtype)
        bad += int(np.count_nonzero((bits & limit) == limit))
        nonzero = nonzero or bool(bits.any())
    if bad:
        return f"has {bad} of {info.elements} values that are NaN or infinite"
    if not nonzero and len(info.shape) > 1:
        return "is all zeros"
    return None
