"""What a checkpoint is and weighs: read from config and headers, in milliseconds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.checkpoint.architecture import Architecture, read_architecture
from toolkit.checkpoint.safetensors_file import TensorInfo
from toolkit.checkpoint.verification import QUANT_CONFIG
from toolkit.checkpoint.weights import Weights, read_weights

_SCALES = ("_scale", "_scale_2", "input_scale", "k_scale", "v_scale")


@dataclass(frozen=True)
class DtypeShare:
    """All tensors of one type: how many, their elements and their bytes."""

    tensors: int
    elements: int
    bytes: int


@dataclass(frozen=True)
class CheckpointSummary:
    """The answer of ``toolkit checkpoint inspect``; sizes in bytes.

    ``parameters`` counts the elements stored, without scales; tied embeddings that are stored
    twice count once. For weights packed several to an element it is None.
    """

    path: Path
    architecture: Architecture
    quantization: str | None
    files: int
    bytes: int
    tensors: int
    parameters: int | None
    by_dtype: dict[str, DtypeShare]
    kv_bytes_per_token: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON types."""
        return asdict(self) | {"path": str(self.path)}


def inspect(path: Path) -> CheckpointSummary:
    """Summarize the checkpoint directory ``path`` without loading it.

    Raises:
        SpecError: config or weights are missing or damaged.
    """
    arch = read_architecture(path)
    weights = read_weights(path)
    quantized = arch.quantization or ("modelopt" if (path / QUANT_CONFIG).exists() else None)
    return CheckpointSummary(
        path=path,
        architecture=arch,
        quantization=quantized,
        files=len(weights.files),
        bytes=sum(info.nbytes for info in weights),
        tensors=len(weights.tensors),
        parameters=_parameters(arch, weights, quantized is not None),
        by_dtype=_shares(weights),
        kv_bytes_per_token={
            "16 bit": arch.kv_bytes_per_token(2),
            "8 bit": arch.kv_bytes_per_token(1),
        },
    )


def _parameters(arch: Architecture, weights: Weights, quantized: bool) -> int | None:
    if quantized and arch.family != "other":
        return arch.parameters
    if quantized:
        return None
    return sum(info.elements for info in weights if not _counts_not(arch, info))


def _counts_not(arch: Architecture, info: TensorInfo) -> bool:
    twice = arch.tied_embeddings and info.name == "lm_head.weight"
    return twice or info.name.endswith((*_SCALES, "rotary_emb.inv_freq"))


def _shares(weights: Weights) -> dict[str, DtypeShare]:
    groups: dict[str, list[TensorInfo]] = defaultdict(list)
    for info in weights:
        groups[info.dtype].append(info)
    return {
        dtype: DtypeShare(
            tensors=len(infos),
            elements=sum(info.elements for info in infos),
            bytes=sum(info.nbytes for info in infos),
        )
        for dtype, infos in sorted(groups.items(), key=lambda item: -_bytes(item[1]))
    }


def _bytes(infos: list[TensorInfo]) -> int:
    return sum(info.nbytes for info in infos)
