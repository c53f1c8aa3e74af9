"""What Triton is told about the CPU runtime's two models, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit.repository.configs import read_configs
from toolkit.repository.contract import Contract, Direction, load_contract


def told(rendered: Path, model: str) -> Any:
    configs, findings = read_configs(rendered)
    assert not findings
    return configs[model]


def rest(config: Any) -> dict[str, Any]:
    """All but the tensors."""
    from google.protobuf.json_format import MessageToDict

    said: dict[str, Any] = MessageToDict(config, preserving_proto_field_name=True)
    return {key: value for key, value in said.items() if key not in ("input", "output")}


def test_the_model_is_one_process_on_the_cpu(rendered: Path) -> None:
    assert rest(told(rendered, "chat")) == {
        "name": "chat",
        "backend": "python",
        "max_batch_size": 1,
        "model_transaction_policy": {"decoupled": True},
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    }


def test_the_alias_is_an_ensemble_of_the_model_alone(rendered: Path) -> None:
    alias = load_contract("llmapi")
    assert rest(told(rendered, "tensorrt_llm")) == {
        "name": "tensorrt_llm",
        "platform": "ensemble",
        "model_transaction_policy": {"decoupled": True},
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": "chat",
                    "model_version": "-1",
                    "input_map": {tensor.maps_to: tensor.name for tensor in alias.inputs},
                    "output_map": {tensor.maps_to: tensor.name for tensor in alias.outputs},
                }
            ]
        },
    }


@pytest.mark.parametrize("direction", ["input", "output"])
@pytest.mark.parametrize(
    ("model", "contract"),
    [("chat", load_contract("public")), ("tensorrt_llm", load_contract("llmapi"))],
    ids=["public", "llmapi"],
)
def test_tensors_are_told_whole_and_in_the_contracts_order(
    rendered: Path, model: str, contract: Contract, direction: Direction
) -> None:
    from tritonclient.grpc import model_config_pb2

    kinds = model_config_pb2.DataType
    found = [
        (each.name, kinds.Name(each.data_type), tuple(each.dims), getattr(each, "optional", None))
        for each in getattr(told(rendered, model), direction)
    ]
    assert found == [
        (each.name, each.dtype, each.dims, each.optional if direction == "input" else None)
        for each in contract.tensors(direction)
    ]
