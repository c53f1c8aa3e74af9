"""Write the weights of a checkpoint: one safetensors file, or several with an index."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint.files import INDEX
from toolkit.checkpoint.safetensors_file import SafetensorsWriter, TensorSpec
from toolkit.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARD_BYTES = 5 * 10**9
"""Largest file, unless one tensor alone is larger; what hubs and downloads cope well with."""


def write_weights(
    directory: Path,
    tensors: Mapping[str, TensorSpec],
    values: Callable[[str], Iterable[NDArray[Any]]],
    progress: Progress,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write ``tensors``, whose values come in parts from ``values(name)``, one after another.

    Progress advances by bytes written; starting and finishing it is the caller's business.
    """
    shards = _plan(tensors, shard_bytes)
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = _file_name(number, len(shards))
        with SafetensorsWriter(directory / name, shard) as writer:
            for tensor, spec in shard.items():
                writer.write(values(tensor))
                weight_map[tensor] = name
                progress.advance(spec.nbytes)
    if len(shards) > 1:
        total = sum(spec.nbytes for spec in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _plan(tensors: Mapping[str, TensorSpec], limit: int) -> list[dict[str, TensorSpec]]:
    shards: list[dict[str, TensorSpec]] = [{}]
    size = 0
    for name, spec in tensors.items():
        if shards[-1] and size + spec.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = spec
        size += spec.nbytes
    return shards


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
