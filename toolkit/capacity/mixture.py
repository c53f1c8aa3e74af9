"""Mixtures of experts by their shapes: as a dense model, and what one expert adds to it.

Known are the types whose layers are those of a dense model with the MLP replaced by a router and
experts of the same form: Mixtral, Qwen2-MoE and Qwen3-MoE (their ``modeling_*.py`` in transformers
5.14). DeepSeek's compress keys and values, others leave layers dense: those are not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from toolkit.capacity.weights import WeightBytes, weight_bytes
from toolkit.checkpoint.architecture import Architecture, Family
from toolkit.engine.nvidia.kv import layers_per_stage
from toolkit.quantize.check import ResolvedQuantization
from toolkit.spec.models import Parallelism

_DENSE: dict[str, Family] = {"mixtral": "llama", "qwen2_moe": "qwen2", "qwen3_moe": "qwen3"}


@dataclass(frozen=True)
class MixtureArchitecture(Architecture):
    """With what a plan needs to know of the experts and nothing else asks for.

    Attributes:
        experts_per_token: Of ``num_experts``, those that each token passes through.
        expert_size: Width of one.
        shared_expert_size: Width of the one that every token passes through; 0 for none.
    """

    experts_per_token: int = 0
    expert_size: int = 0
    shared_expert_size: int = 0


def with_experts(arch: Architecture, config: Mapping[str, Any]) -> Architecture:
    """The architecture with what config.json says of experts, where every layer has some."""

    def count(name: str) -> int:
        value = config.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    mixed = count("decoder_sparse_step") <= 1 and not config.get("mlp_only_layers")
    chosen = count("num_experts_per_tok")
    if arch.model_type not in _DENSE or not mixed or not 0 < chosen <= (arch.num_experts or 0):
        return arch
    return MixtureArchitecture(
        **{field.name: getattr(arch, field.name) for field in fields(Architecture)},
        experts_per_token=chosen,
        expert_size=count("moe_intermediate_size") or arch.intermediate_size,
        shared_expert_size=count("shared_expert_intermediate_size"),
    )


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture's numbers.

    Attributes:
        dense: The model without the experts that are chosen; its MLP is the shared expert.
        experts: To choose from.
        chosen: For each token.
        size: Width of one.
    """

    dense: Architecture
    experts: int
    chosen: int
    size: int

    @property
    def active(self) -> Architecture:
        """What a token passes through, as a dense model: all its experts side by side."""
        wide = self.dense.intermediate_size + self.chosen * self.size
        return replace(self.dense, intermediate_size=wide)

    @property
    def router_weights(self) -> int:
        """Of one layer."""
        return self.dense.hidden_size * self.experts


def mixture_of(arch: Architecture) -> Mixture | None:
    """The mixture that the architecture is; None where it is dense or its layers are not known."""
    if not isinstance(arch, MixtureArchitecture) or not arch.num_experts:
        return None
    family = _DENSE[arch.model_type]
    dense = replace(
        arch,
        family=family,
        intermediate_size=arch.shared_expert_size,
        attention_bias=arch.attention_bias or family == "qwen2",
        qk_norm=family == "qwen3",
    )
    return Mixture(dense, arch.num_experts, arch.experts_per_token, arch.expert_size)


def eagle_head(arch: Architecture) -> Architecture:
    """The layer that an EAGLE head adds to this target: dense, also where the target's are not."""
    mixture = mixture_of(arch)
    if mixture is None:
        return replace(arch, num_layers=1)
    wide = arch.intermediate_size
    return replace(mixture.dense, num_layers=1, num_experts=None, intermediate_size=wide)


def mixture_bytes(
    mixture: Mixture,
    resolved: ResolvedQuantization,
    parallelism: Parallelism,
    *,
    element: int,
    shared_tables: bool,
) -> tuple[WeightBytes, float]:
    """Bytes of the model without chosen experts on one GPU, and of one expert in all its layers.

    An expert is divided by ``tensor``; whether whole experts are dealt out instead
    (``parallelism.expert``) is the same on average.
    """

    def of(size: int) -> WeightBytes:
        arch = replace(mixture.dense, intermediate_size=size)
        return weight_bytes(
            arch, resolved, parallelism, element=element, shared_tables=shared_tables
        )

    without, shared = of(mixture.dense.intermediate_size), mixture.dense.intermediate_size
    expert = of(shared + mixture.size).layers - without.layers
    routers = mixture.router_weights * layers_per_stage(mixture.dense, parallelism) * element
    return WeightBytes(without.layers + routers, without.tables), expert
