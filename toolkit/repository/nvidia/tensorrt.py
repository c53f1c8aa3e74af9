"""The models of the engine path, and what our own model is told about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.checkpoint.architecture import Architecture
from toolkit.quantize.check import ResolvedQuantization
from toolkit.releases import Release, Step
from toolkit.repository.contract import load_contract
from toolkit.repository.nvidia.features import features_of, inputs_of
from toolkit.repository.nvidia.parameters import (
    UNKNOWN,
    EnginePaths,
    KvDivision,
    engine_parameters,
)
from toolkit.repository.nvidia.queueing import engine_queue
from toolkit.repository.nvidia.view import (
    ModelView,
    StepView,
    TensorView,
    of_contract,
    of_release,
)
from toolkit.spec.models import Deployment, DraftModel

TARGET = "tensorrt_llm"
DRAFT = "tensorrt_llm_draft"
BLS = "tensorrt_llm_bls"
ENSEMBLE = "ensemble"
PREPROCESSING = "preprocessing"
POSTPROCESSING = "postprocessing"

OURS = {
    PREPROCESSING: (
        ("QUERY", "REQUEST_OUTPUT_LEN", "BAD_WORDS_DICT", "STOP_WORDS_DICT", "END_ID", "PAD_ID"),
        ("INPUT_ID", "REQUEST_INPUT_LEN", "BAD_WORDS_IDS", "STOP_WORDS_IDS", "REQUEST_OUTPUT_LEN",
         "OUT_END_ID", "OUT_PAD_ID"),
    ),
    POSTPROCESSING: (("TOKENS_BATCH", "SEQUENCE_LENGTH"), ("OUTPUT",)),
}  # fmt: skip
"""Tensors that our models of NVIDIA's names have: those of text, not of images or encoders."""

_REQUESTS_PER_INSTANCE = 64
_MOST_INSTANCES = 4


@dataclass(frozen=True)
class TensorRTModels:
    """Everything that the templates of the engine path print."""

    service: ModelView
    target: ModelView
    bls: ModelView
    ensemble: ModelView
    preprocessing: ModelView
    postprocessing: ModelView
    draft: ModelView | None

    def by_template(self) -> Mapping[str, ModelView]:
        """Models by what templates call them; no draft where there is none."""
        models = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: model for name, model in models.items() if model is not None}


def tensorrt_models(
    deployment: Deployment,
    arch: Architecture,
    release: Release,
    resolved: ResolvedQuantization,
    paths: Mapping[str, EnginePaths],
    *,
    division: KvDivision = UNKNOWN,
) -> TensorRTModels:
    """The models; ``paths`` are those of :data:`TARGET` and, with a draft model, :data:`DRAFT`.

    Raises:
        UnsupportedError: the release has no parameter for what a field asks.
    """
    target = engine_parameters(
        deployment, arch, release, resolved, paths[TARGET], division=division
    )
    draft = None
    if isinstance(deployment.engine.speculation, DraftModel):
        settings = engine_parameters(
            deployment,
            arch,
            release,
            resolved,
            paths[DRAFT],
            role="draft",
            division=division,
        )
        draft = _backend(deployment, release, DRAFT, settings)
    return TensorRTModels(
        service=_service(deployment),
        target=_backend(deployment, release, TARGET, target),
        draft=draft,
        bls=_bls(deployment, release),
        ensemble=_ensemble(deployment, release),
        preprocessing=_text_model(deployment, release, PREPROCESSING),
        postprocessing=_text_model(deployment, release, POSTPROCESSING),
    )


def _backend(
    deployment: Deployment, release: Release, name: str, parameters: tuple[tuple[str, str], ...]
) -> ModelView:
    table = release.triton_model(TARGET)
    return ModelView(
        name=name,
        backend=table.backend,
        max_batch_size=deployment.engine.limits.max_batch_size,
        instances=deployment.serving.replicas,
        inputs=of_release(table.inputs),
        outputs=of_release(table.outputs, direction="output"),
        parameters=parameters,
        queue=engine_queue(deployment),
    )


def service_settings(deployment: Deployment, release: Release) -> dict[str, Any]:
    """The ``engine`` section of our model's settings."""
    engine = deployment.engine
    instances = service_instances(deployment)
    settings: dict[str, Any] = {
        "runtime": "tensorrt",
        "release": release.version,
        "max_batch_size": math.ceil(engine.limits.max_batch_size / instances),
        "max_queue_size": math.ceil(engine.batching.max_queue_size / instances),
        "target": TARGET,
        "guided_decoding": engine.guided_decoding is not None,
    }
    if isinstance(engine.speculation, DraftModel):
        settings |= {"draft": DRAFT, "max_draft_len": engine.speculation.max_draft_len}
    if engine.lora is not None:
        settings["adapters"] = {name: number for number, name in enumerate(engine.lora.adapters)}
    return settings


def service_instances(deployment: Deployment) -> int:
    """Processes that turn tokens into text: one keeps up with a limited number of streams."""
    wanted = math.ceil(deployment.engine.limits.max_batch_size / _REQUESTS_PER_INSTANCE)
    return min(_MOST_INSTANCES, wanted)


def _service(deployment: Deployment) -> ModelView:
    contract = load_contract("public")
    extra = inputs_of(features_of(deployment, "tensorrt"))
    return ModelView(
        name=deployment.name,
        backend="python",
        max_batch_size=contract.max_batch_size,
        instances=service_instances(deployment),
        inputs=of_contract((*contract.inputs, *extra)),
        outputs=of_contract(contract.outputs, direction="output"),
    )


def _bls(deployment: Deployment, release: Release) -> ModelView:
    """Our model's tensors under NVIDIA's BLS model's name, as far as that model has them."""
    service, table = _service(deployment), release.triton_model(BLS)
    ours_in = {each.name for each in service.inputs}
    ours_out = {each.name for each in service.outputs}
    inputs = [each for each in table.inputs if each.name in ours_in]
    outputs = [each for each in table.outputs if each.name in ours_out]
    step = StepView(
        deployment.name,
        tuple((each.name, each.name) for each in inputs),
        tuple((each.name, each.name) for each in outputs),
    )
    return ModelView(
        name=BLS,
        max_batch_size=service.max_batch_size,
        inputs=_plain(of_release(inputs)),
        outputs=_plain(of_release(outputs, direction="output")),
        steps=(step,),
    )


def _ensemble(deployment: Deployment, release: Release) -> ModelView:
    table = release.triton_model(ENSEMBLE)
    steps = tuple(_step(step) for step in table.steps)
    used = {source for step in steps for _, source in step.input_map}
    made = {target for step in steps for _, target in step.output_map}
    return ModelView(
        name=ENSEMBLE,
        max_batch_size=deployment.engine.limits.max_batch_size,
        inputs=of_release(each for each in table.inputs if each.name in used),
        outputs=of_release(
            (each for each in table.outputs if each.name in made), direction="output"
        ),
        steps=steps,
    )


def _step(step: Step) -> StepView:
    """A step without what our text models leave out, and without what depended on it."""
    inputs = dict(step.input_map)
    outputs = dict(step.output_map)
    if step.model in OURS:
        ours_in, ours_out = OURS[step.model]
        inputs = {name: source for name, source in inputs.items() if name in ours_in}
        outputs = {name: target for name, target in outputs.items() if name in ours_out}
    elif step.model == TARGET:
        gone = _left_out()
        inputs = {name: source for name, source in inputs.items() if source not in gone}
    return StepView(step.model, tuple(sorted(inputs.items())), tuple(sorted(outputs.items())))


def _left_out() -> frozenset[str]:
    """The ensemble's tensors that upstream's preprocessing makes and ours does not."""
    return frozenset(
        {
            "_DECODER_INPUT_ID",
            "_REQUEST_DECODER_INPUT_LEN",
            "_EMBEDDING_BIAS",
            "_OUT_PROMPT_TABLE_EXTRA_IDS",
        }
    )


def _text_model(deployment: Deployment, release: Release, name: str) -> ModelView:
    table = release.triton_model(name)
    inputs, outputs = OURS[name]
    parameters = {"tokenizer_dir": "tokenizer"}
    if name == PREPROCESSING:
        parameters["add_special_tokens"] = "true"
    else:
        parameters["skip_special_tokens"] = "true"
    return ModelView(
        name=name,
        backend=table.backend,
        decoupled=False,
        max_batch_size=deployment.engine.limits.max_batch_size,
        instances=1,
        inputs=of_release(table.tensor(each) for each in inputs),
        outputs=of_release((table.tensor(each, "output") for each in outputs), direction="output"),
        parameters=tuple(sorted(parameters.items())),
    )


def _plain(tensors: tuple[TensorView, ...]) -> tuple[TensorView, ...]:
    """Without reshaping: an ensemble hands on what it gets."""
    return tuple(TensorView(each.name, each.dtype, each.dims, each.optional) for each in tensors)
