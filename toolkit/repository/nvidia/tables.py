"""Compare one config.pbtxt with what a table says of the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from toolkit.releases import Release, Tensor, TritonModel
from toolkit.repository.contract import Direction, TensorContract


def compare_tensors(
    direction: Direction,
    declared: Iterable[Any],
    table: Iterable[Tensor | TensorContract],
    *,
    whole: bool,
    plain: bool = False,
) -> Iterator[str]:
    """Unknown names, missing ones, and every property of those that are there.

    Args:
        direction: Inputs or outputs.
        declared: Of the config.pbtxt.
        table: Of the release or the contract.
        whole: All of the table's tensors have to be there, not only those that are not optional.
        plain: An alias hands tensors on as they come: no reshaping, no ragged batches.
    """
    known = {each.name: each for each in table}
    found = {each.name: each for each in declared}
    for name in sorted(found.keys() - known.keys()):
        yield f"{direction} {name!r} is unknown"
    for name in sorted(known.keys() - found.keys()):
        needed = direction == "input" and not known[name].optional
        if whole or needed:
            yield f"{direction} {name!r} is missing"
    for name in sorted(known.keys() & found.keys()):
        yield from _tensor(direction, known[name], found[name], plain=plain)


def _tensor(
    direction: Direction, known: Tensor | TensorContract, found: Any, *, plain: bool
) -> Iterator[str]:
    from tritonclient.grpc import model_config_pb2

    label = f"{direction} {known.name!r}"
    dtype = model_config_pb2.DataType.Name(found.data_type)
    if dtype not in (known.dtype, *getattr(known, "dtype_choices", ())):
        yield f"{label} is {dtype}, not {known.dtype}"
    if tuple(found.dims) != known.dims:
        yield f"{label} has dims {list(found.dims)}, not {list(known.dims)}"
    if direction == "input" and found.optional != known.optional:
        yield f"{label}: optional is {found.optional}"
    ragged = getattr(known, "ragged", False) and not plain
    if direction == "input" and found.allow_ragged_batch != ragged:
        yield f"{label}: allow_ragged_batch is {found.allow_ragged_batch}"
    scalar = getattr(known, "scalar", False) and not plain
    if found.HasField("reshape") != scalar or (scalar and found.reshape.shape):
        yield f"{label} is {'not ' if scalar else ''}reshaped to a scalar"


def parameter_problems(config: Any, model: TritonModel, table: Release) -> Iterator[str]:
    """Unknown, unused, unfilled, wrong and missing parameters."""
    known = {each.name: each for each in model.parameters}
    for name, value in sorted(config.parameters.items()):
        text = value.string_value
        if name not in known:
            yield f"parameter {name!r} is unknown to {table.title}"
        elif known[name].unused:
            yield f"parameter {name!r} has no effect in {table.title}"
        elif not text or text.startswith("${"):
            yield f"parameter {name!r} is not filled in"
        elif known[name].fixed is not None and text != known[name].fixed:
            yield f"parameter {name!r} has to be {known[name].fixed!r}, not {text!r}"
        else:
            wrong = known[name].problem(text)
            if wrong:
                yield f"parameter {name!r} {wrong}"
    for name, parameter in known.items():
        if (parameter.required or parameter.fixed is not None) and name not in config.parameters:
            yield f"parameter {name!r} is missing"


def step_problems(config: Any, model: TritonModel) -> Iterator[str]:
    """Steps of an ensemble that the table does not have, or whose tensors go elsewhere."""
    known = {step.model: step for step in model.steps}
    found = [step.model_name for step in config.ensemble_scheduling.step]
    if found != list(known):
        yield f"has steps {found}, not {list(known)}"
    for step in config.ensemble_scheduling.step:
        if step.model_name not in known:
            continue
        table = known[step.model_name]
        pairs = (("input", step.input_map, table.input_map),
                 ("output", step.output_map, table.output_map))  # fmt: skip
        for direction, given, wanted in pairs:
            for name, tensor in sorted(given.items()):
                if wanted.get(name) != tensor:
                    yield f"step {step.model_name}: {direction} {name!r} goes with {tensor!r}"
