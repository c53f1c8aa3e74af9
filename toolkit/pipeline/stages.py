"""The stages of a build: what each one depends on, and who does it.

A stage's inputs are exactly what changes its result: the keys of the artifacts that it reads, the
part of the deployment file that it obeys, the versions of the software that does the work.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toolkit.checkpoint.architecture import Architecture
from toolkit.errors import UnsupportedError, ValidationFailed
from toolkit.pipeline.provenance import code_digest, tree_digest, versions
from toolkit.progress import Progress
from toolkit.quantize.check import ResolvedQuantization
from toolkit.spec.models import Calibration, Deployment, ModelSource, Quantization
from toolkit.spec.speculation import DraftModel, DraftSource
from toolkit.workspace import Artifact, Json, Workspace
from toolkit.workspace.manifest import NOTES, SHORT_KEY, artifact_key

BuiltRuntime = Literal["openvino", "tensorrt", "pytorch"]
"""The runtimes that are built for; what ``auto`` becomes, resolved_runtime decides."""

REPOSITORY = "repository"
"""The folder of a repository artifact that Triton is given; the manifest stays outside it."""

_ANY_MACHINE = 2**60
"""Bytes of memory, more than any machine has."""

QUANTIZERS = ("nvidia-modelopt", "torch", "transformers")
COMPILERS = ("openvino",)
COMPILING = ("toolkit.engine.openvino", "toolkit.quantize.unified", "toolkit.checkpoint")


@dataclass(frozen=True)
class Job:
    """One build: what is wanted and where it is kept."""

    deployment: Deployment
    workspace: Workspace
    progress: Progress
    offline: bool = False


def fetch(job: Job) -> Artifact:
    """The model's checkpoint, verified."""
    return fetch_source(job, job.deployment.model)


def fetch_source(job: Job, source: ModelSource) -> Artifact:
    """Another model that the deployment names, verified likewise."""
    from toolkit.checkpoint import fetch

    return fetch(source, job.workspace, progress=job.progress, offline=job.offline)


def check(job: Job, arch: Architecture) -> ResolvedQuantization:
    """Refuse in milliseconds what the CPU runtime cannot do; decide what was left open.

    A KV cache below one request is refused; what this machine alone is too small for is only
    told, because a deployment may be built for another one.

    Raises:
        SpecError, UnsupportedError: with what would work instead.
    """
    from toolkit.capacity.host import fit_host
    from toolkit.engine.openvino import settings
    from toolkit.quantize.check import check
    from toolkit.quantize.draft import check_draft

    engine = job.deployment.engine
    settings.check(engine, job.deployment.quantization, arch)
    speculation = engine.speculation
    if isinstance(speculation, DraftModel) and speculation.draft.derive_layers is not None:
        check_draft(arch, speculation.draft.derive_layers)
    resolved = check(arch, job.deployment.quantization, runtime="openvino")
    try:
        fit_host(engine, resolved, arch, available=_ANY_MACHINE)
    except UnsupportedError as error:  # whose details are a sum for that machine
        raise UnsupportedError(error.message, where=error.where, hint=error.hint) from None
    _tell_fit(job, arch, resolved)
    return resolved


def _tell_fit(job: Job, arch: Architecture, resolved: ResolvedQuantization) -> None:
    from toolkit.capacity.host import fit_host

    try:
        notes = fit_host(job.deployment.engine, resolved, arch).notes
    except UnsupportedError as error:
        notes = (f"it could not be served on this machine: {error.message}",)
    for note in notes:
        job.progress.note(note)


def quantize(job: Job, checkpoint: Artifact, resolved: ResolvedQuantization) -> Artifact:
    """The quantized checkpoint; the source itself where no format was asked for."""
    if resolved.changes_nothing:
        return checkpoint
    from toolkit.quantize import quantize

    spec = job.deployment.quantization
    inputs = quantization_inputs(checkpoint, resolved, spec)

    def work(out: Path) -> None:
        quantize(checkpoint.path, resolved.pinned(spec), out, progress=job.progress)

    return job.workspace.produce("quantized", inputs, work, progress=job.progress)


def quantization_inputs(
    checkpoint: Artifact, resolved: ResolvedQuantization, spec: Quantization
) -> dict[str, Json]:
    """What decides a quantized checkpoint, in whatever layout."""
    return {
        "checkpoint": checkpoint.key,
        "weights": resolved.weights.name,
        "kv_cache": resolved.kv_cache.name,
        "block_size": resolved.block_size,
        "modules": list(resolved.modules),
        "limits": dataclasses.asdict(resolved.limits),
        "calibration": _calibration(spec.calibration),
        **_software("toolkit.quantize", "toolkit.checkpoint", tools=QUANTIZERS),
    }


def draft(job: Job, checkpoint: Artifact) -> Artifact | None:
    """The draft model of draft-model speculation: fetched, or derived from the target."""
    speculation = job.deployment.engine.speculation
    if not isinstance(speculation, DraftModel):
        return None
    if speculation.draft.source is not None:
        return fetch_source(job, ModelSource(source=speculation.draft.source))
    return _derive(job, checkpoint, speculation.draft)


def _derive(job: Job, checkpoint: Artifact, source: DraftSource) -> Artifact:
    from toolkit.quantize.draft import derive_draft

    layers = source.derive_layers
    assert layers is not None, "the deployment file gives a source or derive_layers"
    calibration = job.deployment.quantization.calibration
    inputs: dict[str, Json] = {
        "checkpoint": checkpoint.key,
        "layers": layers,
        "steps": source.distill_steps,
        "calibration": _calibration(calibration),
        **_software("toolkit.quantize", "toolkit.checkpoint", tools=QUANTIZERS),
    }

    def work(out: Path) -> None:
        derive_draft(
            checkpoint.path, layers, source.distill_steps, calibration, out, progress=job.progress
        )

    return job.workspace.produce("draft", inputs, work, progress=job.progress, resume=True)


def compile_engine(job: Job, checkpoint: Artifact, drafting: Artifact | None) -> Artifact:
    """The engine of the CPU runtime.

    Its graph is fixed by the weights alone: limits, cache and batching are settings of the
    running engine and rendered into the repository.
    """
    from toolkit.engine.openvino.compiling import compile_checkpoint

    inputs: dict[str, Json] = {
        "runtime": "openvino",
        "checkpoint": checkpoint.key,
        "draft": drafting.key if drafting else None,
        **_software(*COMPILING, tools=COMPILERS),
    }

    def work(out: Path) -> None:
        draft = drafting.path if drafting else None
        made = compile_checkpoint(checkpoint.path, out, progress=job.progress, draft=draft)
        (out / NOTES).write_text(json.dumps(dataclasses.asdict(made)))

    return job.workspace.produce("engine", inputs, work, progress=job.progress)


def render(
    job: Job,
    engine: Artifact,
    checkpoint: Artifact,
    resolved: ResolvedQuantization,
    *,
    runtime: BuiltRuntime = "openvino",
    release: str | None = None,
    kv_tokens: int | None = None,
) -> Artifact:
    """The Triton model repository, in the folder :data:`REPOSITORY` of the artifact.

    Raises:
        ValidationFailed: the static check found an error in what was rendered.
    """
    from toolkit.repository.layout import template_root
    from toolkit.repository.render import render

    deployment = settled(job.deployment, resolved, runtime=runtime, release=release)
    inputs: dict[str, Json] = {
        "deployment": deployment.model_dump(mode="json", exclude=_NOT_RENDERED),
        "order": {field: names(deployment) for field, names in ORDERED.items()},
        "engine": engine.key,
        "checkpoint": checkpoint.key,
        "templates": tree_digest(template_root()),
        **_software("toolkit.repository", *_RENDERING[runtime], tools=("jinja2",)),
    }
    place: dict[str, Any] = {}
    if runtime == "tensorrt":  # its backend is told absolute paths
        root = job.workspace.root.absolute()
        inputs |= {"root": str(root), "kv_tokens": kv_tokens}
        folder = artifact_key("repository", inputs)[:SHORT_KEY]
        place["served_at"] = root / "repository" / folder / REPOSITORY
        place["kv_tokens"] = kv_tokens

    def work(out: Path) -> None:
        render(deployment, engine.path, checkpoint.path, out / REPOSITORY, **place)
        notes = {"warnings": _check_rendered(out / REPOSITORY)}
        (out / NOTES).write_text(json.dumps(notes))

    return job.workspace.produce("repository", inputs, work, progress=job.progress)


def _check_rendered(repository: Path) -> list[str]:
    """The warnings of the static check."""
    from toolkit.repository.check import check_static

    findings = check_static(repository)
    lines = {each: f"{each.where}: {each.message}" for each in findings}
    errors = [each for each in findings if each.severity == "error"]
    if errors:
        raise ValidationFailed(
            f"the rendered repository has {len(errors)} errors",
            where="repository",
            hint=errors[0].hint,
            details=[lines[each] for each in errors],
        )
    return list(lines.values())


_NOT_RENDERED: dict[str, Any] = {
    "model": True,
    "quantization": {"calibration", "accept"},
    "gateway": True,
}

ORDERED: dict[str, Callable[[Deployment], list[str]]] = {
    "scheduling.classes": lambda made: list(made.scheduling.classes),
    "engine.lora.adapters": lambda made: list(
        made.engine.lora.adapters if made.engine.lora else ()
    ),
}
"""Parts with free names, whose order counts (the first class is the default one, adapters are
numbered) and which a key, made of sorted names, does not see."""

_RENDERING: dict[BuiltRuntime, tuple[str, ...]] = {
    "openvino": ("toolkit.engine.openvino", "toolkit.checkpoint", "toolkit.spec"),
    "tensorrt": ("toolkit.engine", "toolkit.releases", "toolkit.checkpoint", "toolkit.spec"),
    "pytorch": ("toolkit.engine", "toolkit.releases", "toolkit.checkpoint", "toolkit.spec"),
}
"""Rooms whose code decides what a repository says."""


def settled(
    deployment: Deployment,
    resolved: ResolvedQuantization,
    *,
    runtime: BuiltRuntime = "openvino",
    release: str | None = None,
) -> Deployment:
    """The deployment with what ``auto`` became for this model and machine."""
    formats = {"weights": resolved.weights.name, "kv_cache": resolved.kv_cache.name}
    engine = {"runtime": runtime, "release": release or deployment.engine.release}
    return deployment.model_copy(
        update={
            "quantization": deployment.quantization.model_copy(update=formats),
            "engine": deployment.engine.model_copy(update=engine),
        }
    )


def _calibration(spec: Calibration) -> Mapping[str, Json]:
    """The settings, and for a file of the user its contents in place of its name."""
    settings = spec.model_dump(mode="json")
    path = Path(spec.source)
    if path.suffix in (".jsonl", ".txt") and path.is_file():
        settings["source"] = {"sha256": tree_digest(path)}
    return settings


def _software(*rooms: str, tools: tuple[str, ...]) -> dict[str, Json]:
    return {"code": code_digest(*rooms), "versions": versions(tools)}
