"""Resolve ``auto`` and refuse what cannot work, before any weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from toolkit.checkpoint.architecture import Architecture
from toolkit.errors import UnsupportedError
from toolkit.quantize.formats import (
    KV_FORMATS,
    WEIGHT_FORMATS,
    AcceptLimits,
    KvFormatInfo,
    RuntimeName,
    WeightFormatInfo,
)
from toolkit.quantize.modules import quantized_modules
from toolkit.spec.models import Acceptance, Quantization, Runtime

Target = Literal["unified", "tensorrt_llm"]


@dataclass(frozen=True)
class ResolvedQuantization:
    """A quantization that can be carried out: nothing is ``auto`` any more.

    Attributes:
        weights: Weight format.
        kv_cache: KV-cache format.
        block_size: Inputs that share one scale; None for formats without blocks.
        modules: Names of the quantized linear layers; empty for weight format none.
        limits: Acceptance limits, the format's own where the deployment file sets none.
    """

    weights: WeightFormatInfo
    kv_cache: KvFormatInfo
    block_size: int | None
    modules: tuple[str, ...]
    limits: AcceptLimits

    def pinned(self, spec: Quantization) -> Quantization:
        """``spec`` with what was ``auto`` or open spelled out, so that it resolves alike later."""
        decided = {
            "weights": self.weights.name,
            "kv_cache": self.kv_cache.name,
            "block_size": self.block_size,
        }
        return spec.model_copy(update=decided)

    @property
    def changes_nothing(self) -> bool:
        """Whether the checkpoint stays as it is."""
        return self.weights.name == "none" and self.kv_cache.name == "none"


def check(
    arch: Architecture,
    spec: Quantization,
    *,
    runtime: Runtime = "auto",
    compute_capability: float | None = None,
    tensor: int = 1,
    target: Target = "unified",
) -> ResolvedQuantization:
    """Resolve ``spec`` for a model, or say why it cannot work; takes milliseconds.

    Args:
        arch: The model's sizes.
        spec: The quantization section of the deployment file.
        runtime: Runtime that will serve the result; ``auto`` leaves that open.
        compute_capability: Of the GPU that will serve it, such as 8.9; None for a CPU or unknown.
        tensor: GPUs that one layer is spread over.
        target: Kind of checkpoint to be written.

    Raises:
        SpecError: an exclude pattern that matches no layer.
        UnsupportedError: a combination that cannot work, with what would.
    """
    weights = _weight_format(spec, runtime, compute_capability)
    kv_cache = _kv_format(spec, runtime, compute_capability, target)
    _check_source(arch, weights, kv_cache)
    if weights.name == "none":
        modules, block = {}, None
    else:
        modules = quantized_modules(arch, spec.exclude)
        block = _block_size(spec, weights, modules, runtime, tensor)
        _check_packing(weights, modules)
    return ResolvedQuantization(
        weights=weights,
        kv_cache=kv_cache,
        block_size=block,
        modules=tuple(modules),
        limits=_limits(spec.accept, weights.limits),
    )


def _weight_format(
    spec: Quantization, runtime: Runtime, capability: float | None
) -> WeightFormatInfo:
    if spec.weights == "auto":
        # fp8 keeps the most accuracy at half the size; int4_awq is what older GPUs can run.
        for name in ("fp8", "int4_awq", "none"):
            if _served(WEIGHT_FORMATS[name], runtime, capability):
                return WEIGHT_FORMATS[name]
    info = WEIGHT_FORMATS[spec.weights]
    if not _served(info, runtime, capability):
        fitting = [other.name for other in WEIGHT_FORMATS.values()
                   if _served(other, runtime, capability)]  # fmt: skip
        raise _not_served(info, "quantization.weights", runtime, capability, fitting)
    return info


def _kv_format(
    spec: Quantization, runtime: Runtime, capability: float | None, target: Target
) -> KvFormatInfo:
    if spec.kv_cache == "auto":
        on_gpu = capability is not None and runtime != "openvino"
        name = "fp8" if on_gpu and _served(KV_FORMATS["fp8"], runtime, capability) else "none"
        return KV_FORMATS[name]
    info = KV_FORMATS[spec.kv_cache]
    if not _served(info, runtime, capability):
        fitting = [other.name for other in KV_FORMATS.values()
                   if _served(other, runtime, capability)]  # fmt: skip
        raise _not_served(info, "quantization.kv_cache", runtime, capability, fitting)
    if info.name == "int8" and target == "unified":
        raise UnsupportedError(
            "an int8 KV cache cannot be written into a unified checkpoint",
            where="quantization.kv_cache",
            hint="use fp8, or the tensorrt runtime, whose checkpoint carries int8",
        )
    return info


def _served(
    info: WeightFormatInfo | KvFormatInfo, runtime: Runtime, capability: float | None
) -> bool:
    if runtime != "auto" and runtime not in info.runtimes:
        return False
    return runtime == "openvino" or capability is None or capability >= info.min_capability


def _not_served(
    info: WeightFormatInfo | KvFormatInfo,
    where: str,
    runtime: Runtime,
    capability: float | None,
    fitting: list[str],
) -> UnsupportedError:
    if runtime != "auto" and runtime not in info.runtimes:
        why = f"the {runtime} runtime does not serve {info.name}"
    else:
        why = (
            f"{info.name} needs compute capability {info.min_capability}, the GPU has {capability}"
        )
    return UnsupportedError(why, where=where, hint=f"what would work: {', '.join(fitting)}")


def _check_source(arch: Architecture, weights: WeightFormatInfo, kv_cache: KvFormatInfo) -> None:
    if arch.quantization and (weights.name != "none" or kv_cache.name != "none"):
        raise UnsupportedError(
            f"the checkpoint is quantized already ({arch.quantization})",
            where="quantization.weights",
            hint="start from the full-precision checkpoint, or set weights and kv_cache to none",
        )


def _block_size(
    spec: Quantization,
    weights: WeightFormatInfo,
    modules: dict[str, tuple[int, int]],
    runtime: RuntimeName | Literal["auto"],
    tensor: int,
) -> int | None:
    if not weights.blocks:
        if spec.block_size is not None:
            raise UnsupportedError(
                f"{weights.name} has no blocks",
                where="quantization.block_size",
                hint="leave block_size out",
            )
        return None
    allowed = weights.gpu_blocks if runtime in ("tensorrt", "pytorch") else weights.blocks
    widths = _widths_per_gpu(modules, tensor)
    fitting = [block for block in allowed if all(width % block == 0 for width in widths)]
    if spec.block_size is not None:
        _check_chosen(spec.block_size, allowed, fitting, widths, weights.name)
        return spec.block_size
    if not fitting:
        raise UnsupportedError(
            f"no block size of {weights.name} ({_list(allowed)}) divides the layer widths "
            f"{_list(sorted(widths))}",
            where="quantization.weights",
            hint=_without_blocks(runtime),
        )
    return fitting[0]


def _check_chosen(
    block: int, allowed: tuple[int, ...], fitting: list[int], widths: set[int], name: str
) -> None:
    if block in fitting:
        return
    broken = sorted(width for width in widths if width % block)
    why = (
        f"block size {block} does not divide the layer widths {_list(broken)}"
        if block in allowed
        else f"{name} runs with block sizes {_list(allowed)} there, not {block}"
    )
    hint = f"use {_list(fitting)}, or leave block_size out" if fitting else _without_blocks("auto")
    raise UnsupportedError(why, where="quantization.block_size", hint=hint)


def _without_blocks(runtime: Runtime) -> str:
    names = [info.name for info in WEIGHT_FORMATS.values()
             if not info.blocks and (runtime == "auto" or runtime in info.runtimes)]  # fmt: skip
    return f"what would work: {', '.join(names)} (no blocks)"


def _widths_per_gpu(modules: dict[str, tuple[int, int]], tensor: int) -> set[int]:
    # Tensor parallelism cuts the inputs of o_proj and down_proj, the outputs of all others.
    widths = set()
    for name, (inputs, _) in modules.items():
        row_parallel = name.endswith(("o_proj", "down_proj"))
        widths.add(inputs // tensor if row_parallel and inputs % tensor == 0 else inputs)
    return widths


def _check_packing(weights: WeightFormatInfo, modules: dict[str, tuple[int, int]]) -> None:
    if weights.weight_bits != 4:
        return
    odd = sorted({outputs for _, outputs in modules.values() if outputs % 2})
    if odd:
        raise UnsupportedError(
            f"{weights.name} packs two output rows in a byte, and widths {_list(odd)} are odd",
            where="quantization.weights",
            hint=_without_blocks("auto"),
        )


def _limits(wanted: Acceptance, default: AcceptLimits) -> AcceptLimits:
    def chosen(value: float | None, otherwise: float) -> float:
        return otherwise if value is None else value

    return AcceptLimits(
        perplexity_increase=chosen(wanted.perplexity_increase, default.perplexity_increase),
        kl_divergence=chosen(wanted.kl_divergence, default.kl_divergence),
        top1_agreement=chosen(wanted.top1_agreement, default.top1_agreement),
    )


def _list(numbers: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, numbers))
