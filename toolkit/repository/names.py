"""Compare what models declare with the recorded contracts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.repository.configs import Configs
from toolkit.repository.contract import Contract, Direction, TensorContract, load_contract
from toolkit.repository.findings import Finding
from toolkit.repository.layout import ALIAS


def check_names(configs: Configs) -> list[Finding]:
    """The alias against the LLM API's table, every other python-backend model against ours."""
    findings = []
    served = [name for name, config in configs.items() if config.backend == "python"]
    if len(served) != 1:
        findings.append(Finding(".", f"one python-backend model is expected, found {served}"))
    for name in served:
        findings += _compare(name, configs[name], load_contract("public"))
    if ALIAS in configs:
        findings += _compare(ALIAS, configs[ALIAS], load_contract("llmapi"))
    return findings


def _compare(name: str, config: Any, contract: Contract) -> list[Finding]:
    messages = [*_tensors("input", config.input, contract)]
    messages += _tensors("output", config.output, contract)
    if config.max_batch_size != contract.max_batch_size:
        messages.append(
            f"max_batch_size is {config.max_batch_size}, clients expect {contract.max_batch_size}"
        )
    if config.model_transaction_policy.decoupled != contract.decoupled:
        messages.append("model_transaction_policy is not decoupled, so nothing can be streamed")
    instances = sum(group.count or 1 for group in config.instance_group)
    if config.backend == "python" and instances != 1:
        messages.append(f"{instances} instances would be as many engines; it has to be 1")
    return [Finding(f"{name}/config.pbtxt", message) for message in messages]


def _tensors(direction: Direction, declared: Any, contract: Contract) -> Iterator[str]:
    expected = {tensor.name: tensor for tensor in contract.tensors(direction)}
    found = {tensor.name: tensor for tensor in declared}
    for name in sorted(expected.keys() - found.keys()):
        yield f"{direction} {name!r} of the {contract.name} contract is missing"
    for name in sorted(found.keys() - expected.keys()):
        yield f"{direction} {name!r} is not in the {contract.name} contract"
    for name in sorted(expected.keys() & found.keys()):
        yield from _tensor(direction, expected[name], found[name])


def _tensor(direction: Direction, expected: TensorContract, found: Any) -> Iterator[str]:
    from tritonclient.grpc import model_config_pb2

    dtype = model_config_pb2.DataType.Name(found.data_type)
    if dtype != expected.dtype:
        yield f"{direction} {expected.name!r} is {dtype}, the contract says {expected.dtype}"
    if tuple(found.dims) != expected.dims:
        yield (
            f"{direction} {expected.name!r} has dims {list(found.dims)}, "
            f"the contract says {list(expected.dims)}"
        )
    if direction == "input" and found.optional != expected.optional:
        yield f"input {expected.name!r}: optional is {found.optional}"
