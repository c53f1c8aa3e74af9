"""The stages of a build for NVIDIA GPUs: TensorRT engines, or a folder for the LLM API."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from toolkit.checkpoint import read_architecture
from toolkit.checkpoint.architecture import Architecture
from toolkit.engine import tensorrt
from toolkit.engine.nvidia import Target
from toolkit.engine.tensorrt import BuildPaths, build_commands, check_engine
from toolkit.pipeline import adapters, parts, stages, trtllm_build
from toolkit.pipeline.planning import make_plan, settle
from toolkit.pipeline.provenance import tree_digest
from toolkit.pipeline.stages import Job
from toolkit.quantize.check import ResolvedQuantization
from toolkit.quantize.check import check as check_quantization
from toolkit.spec.models import Deployment, Eagle, Eagle3, Medusa, Quantization
from toolkit.workspace import Artifact, Json

_CONVERTED = ".converted"
_ADAPTERS = "adapters"
_HEADS = (Eagle, Medusa)


@dataclass(frozen=True)
class NvidiaJob:
    """A job of which everything is decided.

    Attributes:
        job: Its deployment names runtime, release and formats, nothing is ``auto``.
        drafting: The draft model or head, if there is one.
        draft_arch: Of a draft model; a head has none of its own.
        adapters: Directories of the LoRA adapters by name.
        kv_tokens: Tokens that target and draft model both hold; None without a draft model, or
            where no GPU is named.
    """

    job: Job
    target: Target
    resolved: ResolvedQuantization
    arch: Architecture
    checkpoint: Artifact
    drafting: Artifact | None = None
    draft_arch: Architecture | None = None
    adapters: Mapping[str, Path] = field(default_factory=dict)
    kv_tokens: int | None = None

    @property
    def deployment(self) -> Deployment:
        """What is built."""
        return self.job.deployment


def draft(job: Job, checkpoint: Artifact) -> Artifact | None:
    """The draft model, or the head, of speculative decoding."""
    chosen = job.deployment.engine.speculation
    if isinstance(chosen, Eagle | Eagle3 | Medusa):
        return _head(job, parts.Part(chosen.source, "engine.speculation.source", "the head"))
    return stages.draft(job, checkpoint)


def _head(job: Job, part: parts.Part) -> Artifact:
    path = parts.locate(part, progress=job.progress, offline=job.offline)
    inputs: dict[str, Json] = {"files": tree_digest(path)}

    def build(out: Path) -> None:
        parts.put(path, out / "head")

    return job.workspace.produce("head", inputs, build, progress=job.progress)


def decide(job: Job, checkpoint: Artifact, drafting: Artifact | None) -> NvidiaJob:
    """Settle what was open and refuse what cannot work or does not fit; no GPU is needed.

    Raises:
        SpecError, UnsupportedError: with what would work instead.
    """
    arch = read_architecture(checkpoint.path)
    model = None
    if drafting is not None and job.deployment.engine.speculation is not None:
        is_model = job.deployment.engine.speculation.method == "draft_model"
        model = read_architecture(drafting.path) if is_model else None
    settled = settle(job.deployment, arch, draft=model)
    assert settled.target is not None, "not the CPU runtime"
    plan = make_plan(job.deployment, arch, draft=model)
    target, resolved = settled.target, settled.resolved
    deployment = stages.settled(
        job.deployment, resolved, runtime=target.runtime, release=target.release.version
    )
    pinned = resolved.pinned(deployment.quantization)
    deployment = deployment.model_copy(update={"quantization": pinned})
    return NvidiaJob(
        job=replace(job, deployment=deployment),
        target=target,
        resolved=resolved,
        arch=arch,
        checkpoint=checkpoint,
        drafting=drafting,
        draft_arch=model,
        adapters=adapters.locate(job, target.runtime),
        kv_tokens=plan.memory.kv_tokens if plan.memory and model is not None else None,
    )


def export(work: NvidiaJob) -> Artifact:
    """The target as a TensorRT-LLM checkpoint, one file a GPU.

    A target with heads is converted together with them, by TensorRT-LLM itself.
    """
    if isinstance(work.deployment.engine.speculation, _HEADS):
        return work.checkpoint
    return _exported(work, work.checkpoint, work.resolved, work.deployment.quantization)


def export_draft(work: NvidiaJob) -> Artifact | None:
    """The draft model likewise, in its own format."""
    if work.drafting is None or work.draft_arch is None:
        return None
    plain = Quantization()
    return _exported(work, work.drafting, check_quantization(work.draft_arch, plain), plain)


def _exported(
    work: NvidiaJob, checkpoint: Artifact, resolved: ResolvedQuantization, spec: Quantization
) -> Artifact:
    ways = work.deployment.engine.parallelism
    inputs: dict[str, Json] = {
        **stages.quantization_inputs(checkpoint, resolved, spec),
        "tensor": ways.tensor,
        "pipeline": ways.pipeline,
    }

    def build(out: Path) -> None:
        from toolkit.quantize import trtllm_export

        trtllm_export.export_tensorrt_llm(
            checkpoint.path,
            spec,
            out,
            tensor=ways.tensor,
            pipeline=ways.pipeline,
            progress=work.job.progress,
        )

    return work.job.workspace.produce("exported", inputs, build, progress=work.job.progress)


def engines(work: NvidiaJob, exported: Artifact, exported_draft: Artifact | None) -> Artifact:
    """Target and draft engines, built by the machine's own TensorRT-LLM and read back.

    Raises:
        EnvironmentError_: there is no ``trtllm-build`` here.
        UnsupportedError: it is of another release.
        BuildError: it failed.
        ValidationFailed: an engine is not what was ordered.
    """
    heads = work.drafting if work.draft_arch is None else None
    inputs: dict[str, Json] = {
        "runtime": "tensorrt",
        "release": work.target.release.version,
        "commands": [list(each.argv) for each in _commands(work, BuildPaths())],
        "checkpoint": exported.key,
        "draft": exported_draft.key if exported_draft else None,
        "heads": heads.key if heads else None,
        # Numbered by their order, which the names of a mapping would not keep.
        "adapters": [[name, digest] for name, digest in _adapter_digests(work).items()],
    }

    def build(out: Path) -> None:
        version = trtllm_build.require_builder(work.target.release)
        paths = _paths(work, exported, exported_draft, out)
        for command in _commands(work, paths):
            trtllm_build.run_command(command, progress=work.job.progress)
        shutil.rmtree(out / _CONVERTED, ignore_errors=True)
        _read_back(work, out)
        adapters.put(work.adapters, out / _ADAPTERS, "tensorrt")
        _describe(work, out, version)

    return work.job.workspace.produce("engine", inputs, build, progress=work.job.progress)


def command_lines(
    work: NvidiaJob, exported: Artifact, exported_draft: Artifact | None, engine: Artifact
) -> tuple[str, ...]:
    """The commands of :func:`engines` with the paths that they get."""
    paths = _paths(work, exported, exported_draft, engine.path)
    return tuple(map(str, _commands(work, paths)))


def preview(work: NvidiaJob, repository: Artifact) -> dict[str, str]:
    """The texts of the repository that :func:`render` makes, by their place."""
    from toolkit.repository.nvidia import preview_nvidia

    arch = replace(work.arch, quantization=None)
    place = repository.path / stages.REPOSITORY
    return preview_nvidia(
        work.deployment, arch, place, draft=work.draft_arch, kv_tokens=work.kv_tokens
    )


def _commands(work: NvidiaJob, paths: BuildPaths) -> list[tensorrt.Command]:
    return build_commands(
        work.deployment, work.arch, work.target.release, resolved=work.resolved, paths=paths
    )


def _paths(
    work: NvidiaJob, exported: Artifact, exported_draft: Artifact | None, out: Path
) -> BuildPaths:
    heads = isinstance(work.deployment.engine.speculation, _HEADS)
    return BuildPaths(
        model=str(work.checkpoint.path),
        heads=str(_drafting_path(work)) if heads else "",
        checkpoint=str(out / _CONVERTED if heads else exported.path),
        engine=str(out / "target"),
        draft_checkpoint=str(exported_draft.path) if exported_draft else "",
        draft_engine=str(out / "draft"),
        adapters={
            name: (str(path), str(out / _ADAPTERS / str(number)))
            for number, (name, path) in enumerate(work.adapters.items())
            if not adapters.is_converted(path)
        },
    )


def _read_back(work: NvidiaJob, out: Path) -> None:
    release = work.target.release
    check_engine(out / "target", work.deployment, work.arch, release, work.resolved)
    if work.draft_arch is not None:
        plain = check_quantization(work.draft_arch, Quantization())
        check_engine(out / "draft", work.deployment, work.draft_arch, release, plain, role="draft")


def assemble(work: NvidiaJob) -> Artifact:
    """What the LLM API loads beside the checkpoint: draft or head, and adapters."""
    inputs: dict[str, Json] = {
        "runtime": "pytorch",
        "release": work.target.release.version,
        "draft": work.drafting.key if work.drafting else None,
        "adapters": _adapter_digests(work),
    }

    def build(out: Path) -> None:
        if (drafting := _drafting_path(work)) is not None:
            _link_tree(drafting, out / "draft")
        adapters.put(work.adapters, out / _ADAPTERS, "pytorch")
        _describe(work, out, None)

    return work.job.workspace.produce("engine", inputs, build, progress=work.job.progress)


def _describe(work: NvidiaJob, out: Path, version: str | None) -> None:
    """engine.json: for which runtime and release this folder is."""
    content = {
        "runtime": work.target.runtime,
        "release": work.target.release.version,
        "tensorrt_llm": version,
    }
    (out / "engine.json").write_text(json.dumps(content, indent=2), encoding="utf-8")


def _adapter_digests(work: NvidiaJob) -> dict[str, Json]:
    return {name: tree_digest(path) for name, path in work.adapters.items()}


def _drafting_path(work: NvidiaJob) -> Path | None:
    if work.drafting is None:
        return None
    return work.drafting.path if work.draft_arch is not None else work.drafting.path / "head"


def _link_tree(source: Path, target: Path) -> None:
    for file in sorted(source.rglob("*")):
        if file.is_file() and file.name != "manifest.json":
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, place)
            except OSError:  # another file system, or one without links
                shutil.copyfile(file, place)


def render(work: NvidiaJob, engine: Artifact, checkpoint: Artifact) -> Artifact:
    """The Triton model repository.

    Raises:
        ValidationFailed: the static check found an error in what was rendered.
    """
    return stages.render(
        work.job,
        engine,
        checkpoint,
        work.resolved,
        runtime=work.target.runtime,
        release=work.target.release.version,
        kv_tokens=work.kv_tokens if work.target.runtime == "tensorrt" else None,
    )
