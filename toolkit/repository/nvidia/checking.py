"""Prove a rendered repository of an NVIDIA runtime against its release's table.

Both directions: nothing is there that the release does not know, nothing is missing that it needs.
What cannot be tried without a GPU is at least no surprise when there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.errors import ToolkitError
from toolkit.releases import Release, release
from toolkit.repository.configs import Configs
from toolkit.repository.contract import TensorContract, load_contract
from toolkit.repository.findings import Finding
from toolkit.repository.layout import ALIAS, SETTINGS_FILE
from toolkit.repository.nvidia.engines import engine_findings
from toolkit.repository.nvidia.features import feature_inputs
from toolkit.repository.nvidia.policies import policy_problems
from toolkit.repository.nvidia.tables import compare_tensors, parameter_problems, step_problems
from toolkit.repository.nvidia.tensorrt import (
    BLS,
    DRAFT,
    ENSEMBLE,
    POSTPROCESSING,
    PREPROCESSING,
    TARGET,
)
from toolkit.repository.nvidia.texts import text_findings
from toolkit.repository.nvidia.yaml_file import yaml_findings

Runtime = Literal["openvino", "tensorrt", "pytorch"]


@dataclass(frozen=True, slots=True)
class Served:
    """What a repository says of itself: the deployment's model, its runtime and release."""

    model: str
    runtime: Runtime
    release: str | None
    settings: dict[str, Any]


def served_by(repository: Path) -> Served | None:
    """Read ``settings.json`` of the deployment's model; None if there is none."""
    for file in sorted(repository.glob(f"*/{SETTINGS_FILE.as_posix()}")):
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        engine = settings.get("engine", {})
        runtime = engine.get("runtime", "openvino")
        model = file.relative_to(repository).parts[0]
        return Served(model, runtime, engine.get("release"), settings)
    return None


def check_nvidia(repository: Path, configs: Configs, served: Served) -> list[Finding]:
    """Everything that depends on the release."""
    where = f"{served.model}/{SETTINGS_FILE.as_posix()}"
    try:
        table = release(served.release or "")
    except ToolkitError as error:
        return [Finding(where, error.message, hint=error.hint)]
    if served.runtime not in table.runtimes:
        return [Finding(where, f"{table.title} has no {served.runtime} runtime")]
    findings = list(_models(configs, served, table))
    findings += text_findings(repository)
    if served.runtime == "pytorch":
        findings += yaml_findings(repository, configs, served.model, table)
    else:
        findings += engine_findings(repository, configs, served.settings, table)
    return findings


def _models(configs: Configs, served: Served, table: Release) -> Iterator[Finding]:
    expected = {served.model, ALIAS}
    if served.runtime == "tensorrt":
        expected |= {BLS, ENSEMBLE, PREPROCESSING, POSTPROCESSING}
        if served.settings["engine"].get("draft"):
            expected.add(DRAFT)
    for name in sorted(expected - set(configs)):
        yield Finding(name, "the model is missing")
    for name in sorted(set(configs) - expected):
        yield Finding(name, "is no model of this runtime")
    for name in sorted(expected & set(configs)):
        for message in _problems(name, configs[name], served, table):
            yield Finding(f"{name}/config.pbtxt", message)


def _problems(name: str, config: Any, served: Served, table: Release) -> Iterator[str]:
    if name == served.model:
        yield from _service_problems(config, served)
    else:
        yield from _upstream_problems(name, config, served, table)
    yield from policy_problems(config)
    if name not in (PREPROCESSING, POSTPROCESSING):
        if not config.model_transaction_policy.decoupled:
            yield "model_transaction_policy is not decoupled, so nothing can be streamed"
    elif config.model_transaction_policy.decoupled:
        yield "answers once, so it must not be decoupled"


def _service_problems(config: Any, served: Served) -> Iterator[str]:
    contract = load_contract("public")
    features = feature_inputs()
    given = {each.name for each in config.input}
    extra: list[TensorContract] = []
    for inputs in features.values():
        if given & {each.name for each in inputs}:
            extra += inputs
    yield from compare_tensors("input", config.input, (*contract.inputs, *extra), whole=True)
    yield from compare_tensors("output", config.output, contract.outputs, whole=True)
    if config.max_batch_size != contract.max_batch_size:
        yield f"max_batch_size is {config.max_batch_size}, clients expect {contract.max_batch_size}"
    if config.backend != "python":
        yield f"backend is {config.backend!r}, the model is Python code"
    if served.runtime == "pytorch":
        yield from _replica_problems(config, served)


def _replica_problems(config: Any, served: Served) -> Iterator[str]:
    """Each instance is an engine, on GPUs that no other one has."""
    gpus = served.settings["engine"].get("gpus", [])
    instances = sum(group.count or 1 for group in config.instance_group)
    if instances != max(1, len(gpus)):
        yield f"{instances} instances for {len(gpus)} lists of GPUs"
    used = [gpu for each in gpus for gpu in each]
    if len(used) != len(set(used)):
        yield f"instances share GPUs: {gpus}"
    said = config.parameters.get("gpu_device_ids")
    if said is not None and said.string_value != ";".join(",".join(map(str, g)) for g in gpus):
        yield f"gpu_device_ids is {said.string_value!r}, settings.json says {gpus}"


def _upstream_problems(name: str, config: Any, served: Served, table: Release) -> Iterator[str]:
    """One of NVIDIA's models, or ours under its name."""
    runtime: Literal["tensorrt", "pytorch"] = (
        "tensorrt" if served.runtime == "tensorrt" else "pytorch"
    )
    model = table.triton_model(TARGET if name == DRAFT else name, runtime)
    whole = name in (TARGET, DRAFT) and runtime == "tensorrt"
    aliased = name == BLS or runtime == "pytorch"
    yield from compare_tensors("input", config.input, model.inputs, whole=whole, plain=aliased)
    yield from compare_tensors("output", config.output, model.outputs, whole=whole, plain=aliased)
    if model.batched != (config.max_batch_size > 0):
        yield f"max_batch_size is {config.max_batch_size}"
    if config.HasField("ensemble_scheduling"):
        if name == ENSEMBLE:
            yield from step_problems(config, model)
    elif config.backend not in (model.backend, *model.backend_choices):
        yield f"backend is {config.backend!r}, {table.title} has {model.backend!r}"
    else:
        yield from parameter_problems(config, model, table)
