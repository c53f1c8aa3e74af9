"""Safetensors files by their format: headers read without loading, tensors written one by one.

The format (https://github.com/huggingface/safetensors): eight bytes little-endian header size,
a JSON header with dtype, shape and byte range of each tensor, then the bytes. Everything that
can be wrong with a file short of its values follows from the header and the file's size.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from toolkit.errors import BuildError, SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PREFIX = 8
_LARGEST_HEADER = 100_000_000
"""Bytes; the reference reader refuses larger ones."""

DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64,
    "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I8": 8, "U8": 8, "BOOL": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits of one element by the format's name for the type."""

_NUMPY_NAMES = {
    "F64": "float64", "I64": "int64", "U64": "uint64", "C64": "complex64",
    "F32": "float32", "I32": "int32", "U32": "uint32",
    "F16": "float16", "BF16": "bfloat16", "I16": "int16", "U16": "uint16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: ``begin`` and ``end`` are absolute byte offsets."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Number of values."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.end - self.begin


def read_header(path: Path) -> tuple[TensorInfo, ...]:
    """The tensors of ``path`` in the order of their bytes, checked against the file's size.

    Raises:
        SpecError: not a safetensors file, truncated, or with ranges that overlap, leave a hole
            or do not fit their shapes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_PREFIX), "little")
            if not length or length > min(_LARGEST_HEADER, max(0, size - _PREFIX)):
                raise _broken(path, _truncated_or_foreign(path, size))
            raw = file.read(length)
    except OSError as error:
        raise SpecError(f"{path.name} cannot be read: {error.strerror}", where=str(path)) from error
    tensors = sorted(_parse(path, raw, _PREFIX + length), key=lambda info: (info.begin, info.end))
    _check_layout(path, tensors, _PREFIX + length, size)
    return tuple(tensors)


def _truncated_or_foreign(path: Path, size: int) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights (run `git lfs pull`)"
    if not start.strip(b"\0"):
        return "is empty or all zeros" if size else "is empty"
    return "is truncated inside its header or is no safetensors file"


def _broken(path: Path, what: str) -> SpecError:
    return SpecError(
        f"{path.name} {what}", where=str(path), hint="fetch the file again from its source"
    )


def _parse(path: Path, raw: bytes, data: int) -> Iterator[TensorInfo]:
    try:
        header = json.loads(raw, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"has a damaged header: {error}") from None
    if not isinstance(header, dict):
        raise _broken(path, "has a damaged header: no JSON object")
    for name, entry in header.items():
        if name != "__metadata__":
            yield _tensor(path, name, entry, data)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _tensor(path: Path, name: str, entry: Any, data: int) -> TensorInfo:
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        valid = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        valid = False
    if not valid or not isinstance(dtype, str):
        raise _broken(path, f"has a damaged header at tensor {name!r}")
    info = TensorInfo(name, dtype, shape, data + begin, data + end)
    if dtype not in DTYPE_BITS:
        raise _broken(path, f"has tensor {name!r} of unknown type {dtype!r}")
    if info.elements * DTYPE_BITS[dtype] != info.nbytes * 8:
        raise _broken(path, f"gives tensor {name!r} {info.nbytes} bytes for {dtype} {shape}")
    return info


def _check_layout(path: Path, tensors: list[TensorInfo], data: int, size: int) -> None:
    expected = data
    for info in tensors:
        if info.begin != expected:
            what = "overlaps the one before" if info.begin < expected else "follows a hole"
            raise _broken(path, f"is damaged: tensor {info.name!r} {what}")
        expected = info.end
    if size < expected:
        raise _broken(path, f"is truncated: {size} bytes of {expected}")
    if size > expected:
        raise _broken(path, f"has {size - expected} bytes too many after its tensors")


def read_tensor(path: Path, info: TensorInfo) -> NDArray[Any]:
    """Tensor ``info`` of ``path`` as a read-only view of the mapped file, shape ``info.shape``.

    bfloat16 and 8-bit floats come in the types of ``ml_dtypes``.

    Raises:
        SpecError: a type that numpy cannot hold (4 and 6 bits).
    """
    import numpy as np

    name = _NUMPY_NAMES.get(info.dtype)
    if name is None:
        raise SpecError(f"{info.dtype} tensors cannot be read as arrays", where=str(path))
    if not info.elements:
        return np.empty(info.shape, numpy_dtype(name))
    raw = np.memmap(path, np.uint8, "r", offset=info.begin, shape=(info.nbytes,))
    return raw.view(numpy_dtype(name)).reshape(info.shape)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy type called ``name``, with those of ``ml_dtypes`` such as ``bfloat16``."""
    import ml_dtypes
    import numpy as np

    extra = getattr(ml_dtypes, name, None)
    return np.dtype(extra if extra is not None else name)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: the format's type name and the shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        elements = 1
        for size in self.shape:
            elements *= size
        return elements * DTYPE_BITS[self.dtype] // 8


class SafetensorsWriter:
    """Writes one file whose tensors are known beforehand, in their order, part by part.

    Nothing but the part at hand is held in memory. Use it as a context manager; leaving it
    before everything was written raises, unless an exception is under way already.
    """

    def __init__(self, path: Path, tensors: Mapping[str, TensorSpec]) -> None:
        self._path = path
        self._tensors = tensors
        self._expected = sum(spec.nbytes for spec in tensors.values())
        self._written = 0
        self._file = path.open("wb")
        self._file.write(_encode_header(tensors))

    def write(self, parts: Iterable[NDArray[Any]]) -> None:
        """Append arrays; their bytes continue where the last call ended."""
        import numpy as np

        for part in parts:
            data = np.ascontiguousarray(part)
            self._file.write(data.reshape(-1).view(np.uint8).data)
            self._written += data.nbytes

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        if error is None and self._written != self._expected:
            raise BuildError(
                f"{self._written} bytes of {self._expected} were written", where=str(self._path)
            )


def _encode_header(tensors: Mapping[str, TensorSpec]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, spec in tensors.items():
        end = offset + spec.nbytes
        header[name] = {
            "dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, end]
        }  # fmt: skip
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(_PREFIX, "little") + raw
