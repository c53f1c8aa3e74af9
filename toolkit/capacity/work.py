"""A model on its devices as :class:`~toolkit.capacity.roofline.Work`: bytes and operations."""

from __future__ import annotations

from dataclasses import replace

from toolkit.capacity.host import host_kv_bytes, host_weight_bytes
from toolkit.capacity.mixture import mixture_bytes, mixture_of
from toolkit.capacity.roofline import Device, Work
from toolkit.capacity.weights import weight_bytes
from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.nvidia.kv import kv_bytes_per_token
from toolkit.quantize.check import ResolvedQuantization
from toolkit.quantize.modules import LM_HEAD, linear_widths
from toolkit.spec.gpus import Gpu
from toolkit.spec.models import Parallelism

_ACTIVATION = 2
"""Bytes of an activation on its way between GPUs: 16 bit in both runtimes."""


def gpu_device(gpu: Gpu, resolved: ResolvedQuantization) -> Device:
    """The GPU as it computes in this format.

    Weights without quantized activations (W4A16) are unpacked and multiplied in 16 bit; so is
    whatever the tensor cores have no format for.
    """
    rates = gpu.rates
    of_format = {"fp8": rates.fp8, "int8": rates.int8, "nvfp4": rates.fp4}
    rate = of_format.get(resolved.weights.activation, 0.0) or rates.bf16
    return Device(gpu.name, gpu.bandwidth, rate, rates.bf16, gpu.link)


def gpu_work(
    arch: Architecture,
    resolved: ResolvedQuantization,
    parallelism: Parallelism,
    *,
    element: int = 2,
) -> Work:
    """What each GPU of a replica does in a step.

    Tensor parallelism divides the products and adds two all-reduces a layer, each of which sends
    2(n-1)/n of the activations (ring). Pipeline stages run after each other, so that a step passes
    through all of them.

    A mixture's experts are read as its tokens choose them (:meth:`Work.read_bytes`).

    Raises:
        UnsupportedError: a model type whose layers are not known.
    """
    ways, mixture = parallelism.tensor, mixture_of(arch)
    whole = parallelism.model_copy(update={"pipeline": 1})
    router = experts = chosen = 0
    expert_bytes = 0.0
    if mixture is None:
        held = weight_bytes(arch, resolved, whole, element=element, shared_tables=True)
    else:
        experts, chosen = mixture.experts, mixture.chosen
        arch, router = mixture.active, mixture.router_weights
        held, expert_bytes = mixture_bytes(
            mixture, resolved, whole, element=element, shared_tables=True
        )
    table = -(-arch.vocab_size // ways) * arch.hidden_size * element
    reduces = 2 * arch.num_layers if ways > 1 else 0
    return Work(
        layers=arch.num_layers,
        # Of a table of its own, only the rows of a step's tokens are read.
        weight_bytes=held.total - (0 if arch.tied_embeddings else table),
        token_ops=2 * arch.num_layers * (_layer_weights(arch) / ways + router),
        row_ops=2 * arch.hidden_size * arch.vocab_size / ways,
        kv_bytes=kv_bytes_per_token(arch, resolved.kv_cache, whole, element=element),
        pair_ops=_pair_ops(arch) / ways,
        reduced_bytes=reduces * arch.hidden_size * _ACTIVATION * 2 * (ways - 1) / ways,
        collectives=reduces + 2 * (parallelism.pipeline - 1),
        experts=experts,
        chosen=chosen,
        expert_bytes=expert_bytes,
    )


def host_work(arch: Architecture, resolved: ResolvedQuantization, element: int) -> Work:
    """What the CPU engine does in a step, computing in ``element`` bytes."""
    return Work(
        layers=arch.num_layers,
        weight_bytes=host_weight_bytes(arch, resolved, element),
        token_ops=2 * arch.num_layers * _layer_weights(arch),
        row_ops=2 * arch.hidden_size * arch.vocab_size,
        kv_bytes=host_kv_bytes(arch, resolved),
        pair_ops=_pair_ops(arch),
    )


def _layer_weights(arch: Architecture) -> int:
    widths = linear_widths(replace(arch, num_layers=1)).items()
    return sum(inputs * outputs for name, (inputs, outputs) in widths if name != LM_HEAD)


def _pair_ops(arch: Architecture) -> int:
    return 4 * arch.num_layers * arch.num_heads * arch.head_dim
