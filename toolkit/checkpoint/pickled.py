"""Pickle weights that were allowed by name become safetensors, so that nothing else sees them."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint.files import ensure_space
from toolkit.checkpoint.safetensors_file import TensorSpec
from toolkit.checkpoint.shards import write_weights
from toolkit.errors import EnvironmentError_, SpecError
from toolkit.progress import Progress
from toolkit.spec.units import format_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CODES = {
    "torch.float64": "F64", "torch.float32": "F32", "torch.float16": "F16",
    "torch.bfloat16": "BF16", "torch.int64": "I64", "torch.int32": "I32", "torch.int16": "I16",
    "torch.int8": "I8", "torch.uint8": "U8", "torch.bool": "BOOL",
}  # fmt: skip


def convert_pickles(directory: Path, names: Collection[str], out: Path, progress: Progress) -> None:
    """Write the tensors of the PyTorch files ``names`` as safetensors into ``out``.

    They are loaded with ``weights_only``, which admits tensors and plain containers but no code
    of the file's own, and mapped rather than read where their format permits, so memory stays
    small.

    Raises:
        SpecError: a file holds something else than a dictionary of tensors.
        EnvironmentError_: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise EnvironmentError_(
            "pickle weights need torch", hint="pip install 'triton-trtllm-toolkit[quantize]'"
        ) from error
    tensors: dict[str, Any] = {}
    for name in sorted(names):
        path = directory / name
        try:
            # The format of before 2020 is no archive, and cannot be mapped.
            mapped = zipfile.is_zipfile(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise SpecError(
                f"{name} does not load as plain weights: {reason}",
                where=str(path),
                hint="it holds more than tensors, which is not accepted, allowed or not",
            ) from error
        tensors |= _tensors(content, path)
    specs = {name: _spec(name, value, directory) for name, value in tensors.items()}
    total = sum(spec.nbytes for spec in specs.values())
    ensure_space(out, total)

    def values(name: str) -> Iterator[NDArray[Any]]:
        yield tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy()

    progress.start(f"convert {len(names)} pickle files", total, "B")
    write_weights(out, specs, values, progress)
    progress.finish(format_size(total))


def _tensors(content: Any, path: Path) -> dict[str, Any]:
    import torch

    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise SpecError(f"{path.name} is no dictionary of tensors", where=str(path))
    return content


def _spec(name: str, value: Any, directory: Path) -> TensorSpec:
    code = _CODES.get(str(value.dtype))
    if code is None:
        raise SpecError(f"tensor {name!r} is {value.dtype}", where=str(directory))
    return TensorSpec(code, tuple(value.shape))
