"""What a config.pbtxt holds, typed; templates print it and decide nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.releases import Tensor
from toolkit.repository.contract import TensorContract


@dataclass(frozen=True, slots=True)
class TensorView:
    """One input or output: Triton's type name, dims without the batch dimension."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False
    ragged: bool = False
    scalar: bool = False


@dataclass(frozen=True, slots=True)
class QueueView:
    """Triton's own queue before a model; times in microseconds.

    ``priority_levels`` is 0 where all requests are alike; level 1 is the most urgent.
    """

    preferred_batch_size: int
    max_queue_size: int
    max_delay_us: int = 0
    timeout_us: int | None = None
    priority_levels: int = 0
    default_level: int = 0


@dataclass(frozen=True, slots=True)
class StepView:
    """One step of an ensemble; pairs from the step's tensor to the ensemble's."""

    model: str
    input_map: tuple[tuple[str, str], ...]
    output_map: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model of a repository; ``parameters`` are pairs of texts, ``instances`` 0 for none."""

    name: str
    inputs: tuple[TensorView, ...]
    outputs: tuple[TensorView, ...]
    max_batch_size: int
    backend: str = "ensemble"
    decoupled: bool = True
    instances: int = 0
    parameters: tuple[tuple[str, str], ...] = ()
    queue: QueueView | None = None
    steps: tuple[StepView, ...] = ()


def of_release(tensors: Iterable[Tensor], *, direction: str = "input") -> tuple[TensorView, ...]:
    """Tensors as a release's table has them; outputs are never optional in a config.pbtxt."""
    return tuple(
        TensorView(
            each.name,
            each.dtype,
            each.dims,
            each.optional and direction == "input",
            each.ragged,
            each.scalar,
        )
        for each in tensors
    )


def of_contract(
    tensors: Iterable[TensorContract], *, direction: str = "input"
) -> tuple[TensorView, ...]:
    """Tensors as a contract of this project has them."""
    return tuple(
        TensorView(each.name, each.dtype, each.dims, each.optional and direction == "input")
        for each in tensors
    )
