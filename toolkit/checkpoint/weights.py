"""The weight files of a checkpoint: its index, and where each tensor lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.checkpoint.architecture import read_json
from toolkit.checkpoint.files import INDEX, LEFT_OUT, SAFETENSORS, matches
from toolkit.checkpoint.safetensors_file import TensorInfo, read_header, read_tensor
from toolkit.errors import SpecError


@dataclass(frozen=True)
class Weights:
    """All tensors of a checkpoint directory by name, each with its file."""

    directory: Path
    tensors: Mapping[str, tuple[str, TensorInfo]]

    def __iter__(self) -> Iterator[TensorInfo]:
        return (info for _, info in self.tensors.values())

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold tensors, sorted."""
        return tuple(sorted({name for name, _ in self.tensors.values()}))

    def read(self, name: str) -> Any:
        """Tensor ``name`` as a numpy view of its file (see ``safetensors_file.read_tensor``)."""
        file, info = self.tensors[name]
        return read_tensor(self.directory / file, info)


def read_weights(directory: Path) -> Weights:
    """Read every header of the checkpoint and hold it against its index.

    Raises:
        SpecError: no weights, a damaged file, a tensor in two files, or an index that names
            files or tensors which are not there.
    """
    index = directory / INDEX
    listed = _weight_map(index) if index.exists() else {}
    names = sorted(set(listed.values())) if listed else _loose_files(directory)
    tensors: dict[str, tuple[str, TensorInfo]] = {}
    for name in names:
        if not (directory / name).is_file():
            raise SpecError(
                f"{name} is missing, though the index names it",
                where=str(index),
                hint="the download is incomplete: fetch the checkpoint again",
            )
        for info in read_header(directory / name):
            if info.name in tensors:
                raise SpecError(
                    f"tensor {info.name!r} is in {tensors[info.name][0]} and in {name}",
                    where=str(directory),
                )
            tensors[info.name] = (name, info)
    _check_index(index, listed, tensors)
    # A loader follows the index, so what it does not list is as good as absent.
    return Weights(directory, {name: tensors[name] for name in listed} if listed else tensors)


def _loose_files(directory: Path) -> list[str]:
    names = sorted(
        path.name for path in directory.glob(SAFETENSORS) if not matches(path.name, LEFT_OUT)
    )
    if not names:
        raise SpecError(
            "no *.safetensors file is here",
            where=str(directory),
            hint="weights come as safetensors; a pickle file is only taken if "
            "model.allow_pickle names it",
        )
    if len(names) > 1:
        raise SpecError(
            f"{len(names)} weight files, but no {INDEX} says which tensor is where",
            where=str(directory),
        )
    return names


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index).get("weight_map")
    if not isinstance(content, dict) or not content:
        raise SpecError("the index has no weight_map", where=str(index))
    for tensor, name in content.items():
        # A name with a folder could point out of the checkpoint.
        if not isinstance(name, str) or Path(name).name != name:
            raise SpecError(f"the index gives {tensor!r} a file outside", where=str(index))
    return content


def _check_index(
    index: Path, listed: Mapping[str, str], tensors: Mapping[str, tuple[str, TensorInfo]]
) -> None:
    for tensor, name in listed.items():
        found = tensors.get(tensor)
        if found is None or found[0] != name:
            raise SpecError(
                f"tensor {tensor!r} is not in {name}, though the index says so",
                where=str(index),
                hint="files of two versions are mixed: fetch the checkpoint again",
            )
