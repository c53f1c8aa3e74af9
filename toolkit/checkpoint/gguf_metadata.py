"""Typed access to the metadata of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit.errors import EnvironmentError_, SpecError

if TYPE_CHECKING:
    from gguf import GGUFReader, ReaderTensor

T = TypeVar("T")


@dataclass(frozen=True)
class GgufFile:
    """An open GGUF file: its metadata fields and its tensors by name."""

    path: Path
    reader: GGUFReader
    tensors: Mapping[str, ReaderTensor]

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the model's architecture, such as ``llama``."""
        return self.needed("general.architecture", str)

    def get(self, key: str, kind: type[T]) -> T | None:
        """Field ``key``, with ``{arch}`` replaced; None where it is absent.

        Raises:
            SpecError: it is of another type.
        """
        if "{arch}" in key:
            key = key.replace("{arch}", self.architecture)
        field = self.reader.get_field(key)
        if field is None:
            return None
        value: Any = field.contents()
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            # The file holds 32 bits; 1e-05 is meant where 9.999999747378752e-06 is read.
            value = _shortest(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise SpecError(f"{key} is no {kind.__name__}", where=str(self.path))
        return value

    def needed(self, key: str, kind: type[T]) -> T:
        """Like :meth:`get`, for a field that must be there.

        Raises:
            SpecError: it is absent or of another type.
        """
        value = self.get(key, kind)
        if value is None:
            raise SpecError(
                f"{key.replace('{arch}', 'its architecture')} is missing", where=str(self.path)
            )
        return value


def open_gguf(path: Path) -> GgufFile:
    """Open ``path`` and check that all its tensors are within the file.

    Raises:
        SpecError: missing, no GGUF, damaged or truncated.
        EnvironmentError_: the package ``gguf`` is not installed.
    """
    try:
        from gguf import GGUFEndian, GGUFReader
    except ImportError as error:
        raise EnvironmentError_(
            "reading GGUF needs the package gguf", hint="pip install 'gguf>=0.17'"
        ) from error
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise SpecError(f"{path.name} is no GGUF file", where=str(path))
        reader = GGUFReader(path)
    except OSError as error:
        raise SpecError(f"{path.name} cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise SpecError(
            f"{path.name} is damaged or truncated: {error}",
            where=str(path),
            hint="fetch the file again from its source",
        ) from error
    if reader.endianess != GGUFEndian.LITTLE:
        raise SpecError(f"{path.name} is big-endian, which is not read", where=str(path))
    return GgufFile(path, reader, {tensor.name: tensor for tensor in reader.tensors})


def _shortest(value: float) -> float:
    import numpy as np

    return float(str(np.float32(value)))
