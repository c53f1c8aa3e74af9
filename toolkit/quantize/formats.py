"""The number formats as data, and the check that refuses what cannot work.

Everything here is arithmetic on a handful of integers: no weight is read and nothing heavy is
imported, so that ``plan`` and ``build`` can refuse a combination in milliseconds.

Sources: hardware and runtimes are TensorRT-LLM's support matrix
(``docs/source/features/quantization.md``, 2026 main); the block sizes of the CUDA kernels are
TensorRT-LLM issues 988 (W4A16: 64 or 128) and 1770 (W4A8: 128); the packing rules are
ModelOpt 0.47 ``export/quant_utils.py`` (``pack_int4_in_uint8``, ``_validate_int4_block_size``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["none", "fp8", "int8", "nvfp4"]
RuntimeName = Literal["tensorrt", "pytorch", "openvino"]
EVERY_RUNTIME: tuple[RuntimeName, ...] = ("tensorrt", "pytorch", "openvino")


@dataclass(frozen=True)
class AcceptLimits:
    """What a quantized checkpoint may lose on the held-out text.

    Attributes:
        perplexity_increase: Relative; 0.05 accepts five percent more.
        kl_divergence: Mean over positions, in nats.
        top1_agreement: Least share of positions with the same most likely token.
    """

    perplexity_increase: float
    kl_divergence: float
    top1_agreement: float


@dataclass(frozen=True)
class WeightFormatInfo:
    """One weight format.

    Attributes:
        name: As written in the deployment file.
        modelopt_config: Name of the constant in ``modelopt.torch.quantization``; None for none.
        quant_algo: What ``hf_quant_config.json`` calls it.
        weight_bits: Bits of one stored weight, scales not counted.
        activation: Number format of the activations entering a quantized layer.
        blocks: Block sizes along the input width, best first; empty for one scale a row or tensor.
        gpu_blocks: Those of ``blocks`` that the CUDA kernels take.
        min_capability: Least CUDA compute capability.
        runtimes: Runtimes that serve it.
        limits: Default acceptance limits.
    """

    name: str
    modelopt_config: str | None
    quant_algo: str | None
    weight_bits: int
    activation: Activation
    blocks: tuple[int, ...]
    gpu_blocks: tuple[int, ...]
    min_capability: float
    runtimes: tuple[RuntimeName, ...]
    limits: AcceptLimits


@dataclass(frozen=True)
class KvFormatInfo:
    """One KV-cache format; attributes as in :class:`WeightFormatInfo`."""

    name: str
    modelopt_config: str | None
    quant_algo: str | None
    bits: int
    min_capability: float
    runtimes: tuple[RuntimeName, ...]


# Default limits: about 1.5 times what the format cost SmolLM2-135M-Instruct on the held-out text
# (2303 tokens), a model so small that quantization costs it more than the models people deploy.
# Measured there, as perplexity increase, KL divergence, top-1 agreement: none with an fp8 cache
# +0.5 %, 0.010, 0.944, with an int8 cache +0.3 %, 0.008, 0.946; fp8 +1.4 %, 0.044, 0.885 (with an
# fp8 cache +0.3 %, 0.052, 0.875); int8_sq +10.1 %, 0.150, 0.811; int4_awq with blocks of 64
# +30.2 %, 0.289, 0.711. A scale that is off by a factor of two lies beyond them.
WEIGHT_FORMATS: dict[str, WeightFormatInfo] = {
    info.name: info
    for info in (
        WeightFormatInfo(
            name="none",
            modelopt_config=None,
            quant_algo=None,
            weight_bits=16,
            activation="none",
            blocks=(),
            gpu_blocks=(),
            min_capability=7.0,
            runtimes=EVERY_RUNTIME,
            limits=AcceptLimits(0.02, 0.02, 0.91),
        ),
        WeightFormatInfo(
            name="fp8",
            modelopt_config="FP8_DEFAULT_CFG",
            quant_algo="FP8",
            weight_bits=8,
            activation="fp8",
            blocks=(),
            gpu_blocks=(),
            min_capability=8.9,
            runtimes=EVERY_RUNTIME,
            limits=AcceptLimits(0.05, 0.08, 0.84),
        ),
        WeightFormatInfo(
            name="int4_awq",
            modelopt_config="INT4_AWQ_CFG",
            quant_algo="W4A16_AWQ",
            weight_bits=4,
            activation="none",
            blocks=(128, 64, 32, 16),
            gpu_blocks=(128, 64),
            min_capability=8.0,
            runtimes=EVERY_RUNTIME,
            limits=AcceptLimits(0.45, 0.42, 0.62),
        ),
        WeightFormatInfo(
            name="w4a8_awq",
            modelopt_config="W4A8_AWQ_BETA_CFG",
            quant_algo="W4A8_AWQ",
            weight_bits=4,
            activation="fp8",
            blocks=(128, 64, 32, 16),
            gpu_blocks=(128,),
            min_capability=8.9,
            runtimes=EVERY_RUNTIME,
            limits=AcceptLimits(0.40, 0.35, 0.65),
        ),
        WeightFormatInfo(
            name="int8_sq",
            modelopt_config="INT8_SMOOTHQUANT_CFG",
            quant_algo="W8A8_SQ_PER_CHANNEL",
            weight_bits=8,
            activation="int8",
            blocks=(),
            gpu_blocks=(),
            min_capability=8.0,
            runtimes=("tensorrt", "openvino"),
            limits=AcceptLimits(0.18, 0.22, 0.74),
        ),
        WeightFormatInfo(
            name="nvfp4",
            modelopt_config="NVFP4_DEFAULT_CFG",
            quant_algo="NVFP4",
            weight_bits=4,
            activation="nvfp4",
            blocks=(16,),
            gpu_blocks=(16,),
            min_capability=10.0,
            runtimes=("tensorrt", "pytorch"),
            limits=AcceptLimits(0.40, 0.35, 0.65),
        ),
    )
}
"""Every weight format by name."""

KV_FORMATS: dict[str, KvFormatInfo] = {
    info.name: info
    for info in (
        KvFormatInfo("none", None, None, 16, 7.0, EVERY_RUNTIME),
        KvFormatInfo("fp8", "FP8_KV_CFG", "FP8", 8, 8.9, EVERY_RUNTIME),
        KvFormatInfo("int8", None, "INT8", 8, 8.0, ("tensorrt",)),
        KvFormatInfo("nvfp4", "NVFP4_KV_CFG", "NVFP4", 4, 10.0, ("pytorch",)),
    )
}
"""Every KV-cache format by name. ModelOpt 0.47 has no constant for int8: the recipe spells it."""
