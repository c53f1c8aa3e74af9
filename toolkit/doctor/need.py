"""What one deployment needs of the machine, told from its file alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from toolkit.quantize.formats import WEIGHT_FORMATS
from toolkit.releases import Release
from toolkit.serving import container, launcher
from toolkit.spec.models import Deployment, DraftModel, Runtime

_HUB = "hf://"
_BILLIONS = re.compile(r"(?<![\w.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bBmM])(?![a-zA-Z0-9])")
_SAMPLE_BYTES = 400 * 10**6


@dataclass(frozen=True)
class Need:
    """Needs of one deployment.

    Attributes:
        runtime: The resolved runtime.
        contained: The server runs in a container.
        release: The TensorRT-LLM release; None for the CPU runtime.
        gpus: Numbers of the GPUs it uses; none for the CPU runtime.
        image: The container's image, if it runs in one and one is known.
        weight_bytes: Bytes of the model's own checkpoint in 16 bits, draft included; None if the
            file does not tell.
        disk_bytes: Bytes that a build writes: checkpoint, quantized checkpoint, engine.
        hub: Weights come from the hub.
        quantizes: ModelOpt is used.
    """

    deployment: Deployment
    runtime: Runtime
    contained: bool
    release: Release | None
    gpus: tuple[int, ...]
    image: str | None
    weight_bytes: int | None
    disk_bytes: int | None
    hub: bool
    quantizes: bool

    @property
    def on_gpu(self) -> bool:
        """An NVIDIA runtime."""
        return self.runtime in ("tensorrt", "pytorch")

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of the weights in the format that is served; an open one is taken for 16 bits."""
        if self.weight_bytes is None:
            return None
        return int(self.weight_bytes * _share(self.deployment))


def need_of(deployment: Deployment) -> Need:
    """What ``deployment`` needs; ``auto`` is taken for the CPU runtime unless GPUs are split.

    Raises:
        SpecError: its release is not known.
    """
    runtime = resolved_runtime(deployment)
    release = container.release_of(deployment, runtime)
    chosen = launcher.choose(deployment, runtime)
    contained = isinstance(chosen, container.ContainerLauncher)
    image = deployment.serving.image
    if contained and image is None and release is not None and release.container is not None:
        image = release.container.name
    weights = _sum([source_bytes(source) for source in _sources(deployment)])
    return Need(
        deployment=deployment,
        runtime=runtime,
        contained=contained,
        release=release,
        gpus=() if runtime == "openvino" else deployment.serving.gpus,
        image=image if contained else None,
        weight_bytes=weights,
        disk_bytes=None if weights is None else _disk(deployment, weights),
        hub=any(source.startswith(_HUB) for source in _sources(deployment)),
        quantizes=deployment.quantization.weights != "none"
        or deployment.quantization.kv_cache != "none",
    )


def resolved_runtime(deployment: Deployment) -> Runtime:
    """The runtime that the file asks for.

    ``auto`` is the LLM API where the file names a model of GPU (``serving.gpu``) or splits the
    model over several, and the CPU runtime everywhere else.
    """
    runtime = deployment.engine.runtime
    if runtime != "auto":
        return runtime
    on_gpu = deployment.serving.gpu or deployment.engine.parallelism.world_size > 1
    return "pytorch" if on_gpu else "openvino"


def _sources(deployment: Deployment) -> list[str]:
    sources = [deployment.model.source]
    speculation = deployment.engine.speculation
    if isinstance(speculation, DraftModel) and speculation.draft.source:
        sources.append(speculation.draft.source)
    return sources


def source_bytes(source: str) -> int | None:
    """Bytes of the checkpoint: of files that are here, else by the size in the model's name."""
    path = Path(source)
    if path.is_dir():
        return sum(each.stat().st_size for each in path.glob("*.safetensors")) or None
    if path.is_file():
        return path.stat().st_size * 4  # GGUF mostly holds 4 bits where the checkpoint has 16
    if source.startswith("sample:"):
        return _SAMPLE_BYTES
    name = source.partition("@")[0].rpartition("/")[2]
    match = _BILLIONS.search(re.sub(r"[-_]", " ", name))
    if match is None:
        return None
    experts, number, unit = int(match[1] or 1), float(match[2]), match[3].lower()
    return int(experts * number * (10**9 if unit == "b" else 10**6) * 2)


def _sum(sizes: list[int | None]) -> int | None:
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _disk(deployment: Deployment, weights: int) -> int:
    """The checkpoint, its quantized form and the engine, which is as large as that."""
    share = _share(deployment)
    quantized = share if deployment.quantization.weights != "none" else 0
    return int(weights * (1 + quantized + share) * 1.05)


def _share(deployment: Deployment) -> float:
    """Bits of a weight as it is served, of 16."""
    chosen = deployment.quantization.weights
    return WEIGHT_FORMATS[chosen].weight_bits / 16 if chosen in WEIGHT_FORMATS else 1.0
