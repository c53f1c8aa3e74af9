"""The models of the LLM API runtime, its model.yaml, and what our own model is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.pytorch import ModelPaths, llm_arguments, request_limits
from toolkit.quantize.check import ResolvedQuantization
from toolkit.releases import Release
from toolkit.repository.contract import load_contract
from toolkit.repository.layout import ALIAS
from toolkit.repository.nvidia.devices import gpu_device_ids, gpu_lists
from toolkit.repository.nvidia.features import features_of, inputs_of
from toolkit.repository.nvidia.view import ModelView, StepView, of_contract, of_release
from toolkit.spec.models import Deployment

MODEL = "./model"
DRAFT = "./draft"
ADAPTERS = "./adapters"
"""Folders beside model.yaml; the leading ./ marks a path there."""


@dataclass(frozen=True)
class PyTorchModels:
    """Everything that the templates of the LLM API runtime print."""

    service: ModelView
    alias: ModelView

    def by_template(self) -> Mapping[str, ModelView]:
        """Models by what templates call them."""
        return {"service": self.service, "alias": self.alias}


def pytorch_models(deployment: Deployment, release: Release) -> PyTorchModels:
    """The deployment's model, and NVIDIA's name for it."""
    return PyTorchModels(_service(deployment, release), _alias(deployment, release))


def model_arguments(
    deployment: Deployment,
    arch: Architecture,
    release: Release,
    resolved: ResolvedQuantization,
) -> dict[str, JsonValue]:
    """What model.yaml holds.

    Raises:
        UnsupportedError: the release has no counterpart of a field.
    """
    adapters = {name: f"{ADAPTERS}/{name}" for name in _adapters(deployment)}
    paths = ModelPaths(model=MODEL, draft=DRAFT, adapters=adapters)
    triton: dict[str, JsonValue] = {
        "max_batch_size": 0,
        "decoupled": True,
        "cancellation_check_period_ms": 100,
    }
    arguments = llm_arguments(deployment.engine, resolved, arch, release, paths=paths)
    return {"triton_config": triton, **arguments}


def service_settings(deployment: Deployment, release: Release) -> dict[str, Any]:
    """The ``engine`` section of our model's settings; each instance is told all of it."""
    limits = request_limits(deployment.engine)
    engine = deployment.engine
    settings: dict[str, Any] = {
        "runtime": "pytorch",
        "release": release.version,
        "max_batch_size": engine.limits.max_batch_size,
        "max_queue_size": engine.batching.max_queue_size,
        "guided_decoding": limits.guided,
        "penalties": limits.penalties,
    }
    if deployment.serving.replicas > 1:
        settings["gpus"] = [list(each) for each in gpu_lists(deployment)]
    if limits.adapters:
        # Pairs, because their order numbers them and JSON's objects have none.
        settings["adapters"] = [[name, f"{ADAPTERS[2:]}/{name}"] for name in limits.adapters]
    return settings


def _adapters(deployment: Deployment) -> tuple[str, ...]:
    return tuple(deployment.engine.lora.adapters) if deployment.engine.lora else ()


def _service(deployment: Deployment, release: Release) -> ModelView:
    contract = load_contract("public")
    extra = inputs_of(features_of(deployment, "pytorch"))
    known = {each.name for each in release.triton_model(ALIAS, "pytorch").parameters}
    parameters: tuple[tuple[str, str], ...] = ()
    # Releases before 1.2 have no such parameter; there settings.json alone says it.
    if deployment.serving.replicas > 1 and "gpu_device_ids" in known:
        parameters = (("gpu_device_ids", gpu_device_ids(deployment)),)
    return ModelView(
        name=deployment.name,
        backend="python",
        max_batch_size=contract.max_batch_size,
        instances=deployment.serving.replicas,
        inputs=of_contract((*contract.inputs, *extra)),
        outputs=of_contract(contract.outputs, direction="output"),
        parameters=parameters,
    )


def _alias(deployment: Deployment, release: Release) -> ModelView:
    """The tensors that the release's LLM API model has, as far as they lead to ours."""
    contract, table = load_contract("llmapi"), release.triton_model(ALIAS, "pytorch")
    ours = {each.name: each.maps_to or each.name for each in contract.inputs}
    ours |= {each.name: each.name for each in inputs_of(features_of(deployment, "pytorch"))}
    inputs = [each for each in table.inputs if each.name in ours]
    theirs = {each.name: each.maps_to or each.name for each in contract.outputs}
    outputs = [each for each in table.outputs if each.name in theirs]
    step = StepView(
        deployment.name,
        tuple((ours[each.name], each.name) for each in inputs),
        tuple((theirs[each.name], each.name) for each in outputs),
    )
    return ModelView(
        name=ALIAS,
        max_batch_size=contract.max_batch_size,
        inputs=of_release(inputs),
        outputs=of_release(outputs, direction="output"),
        steps=(step,),
    )
