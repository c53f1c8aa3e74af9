"""Type-check ensembles: what Triton would refuse at load, and what it would not notice.

The rules are those of ``ValidateEnsembleConfig`` in Triton core
(src/ensemble_scheduler/ensemble_utils.cc).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.repository.configs import Configs
from toolkit.repository.findings import Finding

_ANY = -1


@dataclass(frozen=True)
class Tensor:
    """A tensor as one model declares it; ``batched`` models add a dimension before ``dims``."""

    owner: str
    name: str
    dtype: int
    dims: tuple[int, ...]
    batched: bool
    optional: bool

    @property
    def full_dims(self) -> tuple[int, ...]:
        """With the batch dimension, where there is one."""
        return (_ANY, *self.dims) if self.batched else self.dims


def check_wiring(configs: Configs) -> list[Finding]:
    """All ensembles of a repository."""
    return [
        Finding(f"{name}/config.pbtxt", message)
        for name, config in configs.items()
        if config.HasField("ensemble_scheduling")
        for message in _check_ensemble(config, configs)
    ]


def _check_ensemble(ensemble: Any, configs: Configs) -> Iterator[str]:
    inputs, outputs = _tensors(ensemble, ensemble.input), _tensors(ensemble, ensemble.output)
    known = dict(inputs)
    used: set[str] = set()
    for step in ensemble.ensemble_scheduling.step:
        model = configs.get(step.model_name)
        if model is None:
            yield f"step {step.model_name!r} is not a model of this repository"
            continue
        yield from _check_step(ensemble, model)
        yield from _check_inputs(step, model, known)
        used |= set(step.input_map.values())
        yield from _produce(step, model, known, outputs)
    for name in sorted(set(inputs) - used):
        yield f"input {name!r} is not used by any step"
    for name in sorted(set(outputs) - set(known)):
        yield f"output {name!r} is not produced by any step"


def _check_step(ensemble: Any, model: Any) -> Iterator[str]:
    if 0 < model.max_batch_size < ensemble.max_batch_size:
        yield (
            f"max_batch_size {ensemble.max_batch_size} exceeds that of step {model.name!r}, "
            f"{model.max_batch_size}"
        )
    if model.model_transaction_policy.decoupled and not (
        ensemble.model_transaction_policy.decoupled
    ):
        yield f"step {model.name!r} is decoupled, the ensemble does not say so"


def _check_inputs(step: Any, model: Any, known: Mapping[str, Tensor]) -> Iterator[str]:
    declared = _tensors(model, model.input)
    for name in sorted(set(step.input_map) - set(declared)):
        yield f"maps to input {name!r}, which {model.name!r} does not have"
    for name, tensor in declared.items():
        source = step.input_map.get(name)
        if source is None:
            if not tensor.optional:
                yield f"does not map input {name!r} of {model.name!r}, which is not optional"
        elif source not in known:
            yield f"maps {source!r} to input {name!r} of {model.name!r}, but nothing provides it"
        else:
            yield from _consistent(known[source], tensor)
            if known[source].optional and not tensor.optional:
                yield f"input {source!r} is optional, but {model.name!r} needs it as {name!r}"


def _produce(
    step: Any, model: Any, known: dict[str, Tensor], outputs: Mapping[str, Tensor]
) -> Iterator[str]:
    declared = _tensors(model, model.output)
    for name, target in step.output_map.items():
        tensor = declared.get(name)
        if tensor is None:
            yield f"maps output {name!r}, which {model.name!r} does not have"
            continue
        if target in known:
            yield f"tensor {target!r} is produced twice"
        known[target] = tensor
        if target in outputs:
            yield from _consistent(tensor, outputs[target])


def _consistent(one: Tensor, other: Tensor) -> Iterator[str]:
    pair = f"{one.owner}.{one.name} and {other.owner}.{other.name}"
    if one.dtype != other.dtype:
        yield f"{pair} differ in data type: {_type_name(one.dtype)}, {_type_name(other.dtype)}"
    if not (_match(one.dims, other.dims) or _match(one.full_dims, other.full_dims)):
        yield f"{pair} differ in shape: {list(one.full_dims)}, {list(other.full_dims)}"


def _match(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) and all(
        a == b or _ANY in (a, b) for a, b in zip(one, other, strict=True)
    )


def _tensors(config: Any, declared: Any) -> dict[str, Tensor]:
    """What ``config`` declares; Triton looks at ``reshape`` in ensembles only, not in steps."""
    ensemble = config.HasField("ensemble_scheduling")
    return {
        each.name: Tensor(
            owner=config.name,
            name=each.name,
            dtype=each.data_type,
            dims=tuple(each.reshape.shape if ensemble and each.HasField("reshape") else each.dims),
            batched=config.max_batch_size > 0,
            optional=getattr(each, "optional", False),
        )
        for each in declared
    }


def _type_name(value: int) -> str:
    from tritonclient.grpc import model_config_pb2

    return str(model_config_pb2.DataType.Name(value))
