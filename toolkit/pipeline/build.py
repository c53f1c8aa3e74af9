"""Build a deployment: run the stages in order, or say which ones would run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from toolkit.doctor.need import resolved_runtime
from toolkit.errors import EnvironmentError_, SpecError, ToolkitError
from toolkit.pipeline import stages
from toolkit.pipeline.stages import BuiltRuntime, Job
from toolkit.progress import Progress
from toolkit.spec.models import Deployment
from toolkit.workspace import Artifact, Json, Manifest, Workspace, record_use, users_by_key
from toolkit.workspace.manifest import SHORT_KEY, artifact_key

if TYPE_CHECKING:
    from toolkit.pipeline.nvidia_stages import NvidiaJob

NOWHERE = "/<repository>"
"""Stands in a dry run for the directory that a repository will be served from."""


@dataclass(frozen=True)
class Configs:
    """config.json files of models that are not fetched, for what can be told without them."""

    model: Path | None = None
    draft: Path | None = None


@dataclass(frozen=True)
class StageResult:
    """One stage of a build; ``seconds`` is what it took this time."""

    name: str
    artifact: Artifact
    seconds: float


@dataclass(frozen=True)
class BuildResult:
    """What a build made or found: the stages in order, the last one being the repository.

    Attributes:
        complete: Every stage could be told.
        commands: TensorRT-LLM's own commands that the build runs, whole.
        preview: Of a dry run for NVIDIA GPUs: texts of the repository by their place.
    """

    deployment: Deployment
    stages: tuple[StageResult, ...]
    complete: bool
    runtime: BuiltRuntime = "openvino"
    commands: tuple[str, ...] = ()
    preview: Mapping[str, str] = field(default_factory=dict)
    obstacle: str = ""

    def artifact(self, name: str) -> Artifact | None:
        """The artifact of the stage ``name``, None when the build has no such stage."""
        return next((stage.artifact for stage in self.stages if stage.name == name), None)

    @property
    def repository(self) -> Path:
        """The Triton model repository.

        Raises:
            LookupError: a dry run that could not look that far.
        """
        artifact = self.artifact("repository")
        if artifact is None:
            raise LookupError("this build has no repository")
        return artifact.path / stages.REPOSITORY


def build(
    deployment: Deployment,
    workspace: Workspace,
    *,
    progress: Progress,
    offline: bool = False,
    dry_run: bool = False,
    configs: Configs = Configs(),
) -> BuildResult:
    """Make whatever is missing for ``deployment``; what is there already is taken as it is.

    Args:
        deployment: What is wanted.
        workspace: Where artifacts are found and put.
        progress: Told about every long operation.
        offline: Use no network; what is missing locally is an error that says so.
        dry_run: Build nothing. The result's artifacts have ``reused`` false where a build would
            have to work. Without the checkpoint only what config.json decides can be told:
            refusals, TensorRT-LLM's commands and the repository's texts; ``complete`` is false
            then.
        configs: For a dry run: what is known of models that are not there.

    Raises:
        SpecError, UnsupportedError, EnvironmentError_, BuildError, ValidationFailed: by stage.
    """
    runtime = resolved_runtime(deployment)
    assert runtime != "auto", "resolved"
    job = Job(deployment, LookOnly(workspace.root) if dry_run else workspace, progress, offline)
    run = _Run(None if dry_run else _keeper(job))
    if not dry_run:
        _foresee(job, runtime)
    try:
        checkpoint = run("checkpoint", lambda: stages.fetch(job))
    except ToolkitError as error:
        # Without a network a dry run still tells what it can.
        if not dry_run or not (configs.model or isinstance(error, EnvironmentError_)):
            raise
        preview = _preview(job, run, runtime, configs, reachable=False)
        return replace(preview, obstacle=error.message)
    if dry_run and not checkpoint.reused:
        return _preview(job, run, runtime, configs, reachable=True)
    if runtime == "openvino":
        told = BuildResult(deployment, (), _for_cpu(job, run, checkpoint))
    else:
        told = _for_gpus(job, run, checkpoint, configs if dry_run else None)
    result = replace(told, stages=tuple(run.done), runtime=runtime)
    if not dry_run:
        record_use(workspace.root, deployment.name, [each.artifact.key for each in run.done])
    return result


def _keeper(job: Job) -> Callable[[list[str]], None]:
    """What keeps a running build's artifacts, and those of the last one, from being pruned."""
    root, name = job.workspace.root, job.deployment.name
    before = [key for key, users in users_by_key(root).items() if name in users]
    return lambda keys: record_use(root, name, [*before, *keys])


def _foresee(job: Job, runtime: BuiltRuntime) -> None:
    """Refuse what config.json alone shows cannot work: before the download, not after it."""
    from toolkit.pipeline.architectures import draft_architecture, target_architecture
    from toolkit.pipeline.planning import make_plan, settle

    deployment, store = job.deployment, job.workspace
    try:
        arch = target_architecture(deployment, store, offline=job.offline)
        drafting = draft_architecture(deployment, arch, store, offline=job.offline)
    except ToolkitError:
        return  # what is wrong with a source, fetching it says best
    # A CPU deployment may be built for a machine with more memory than this one.
    decide = settle if runtime == "openvino" else make_plan
    decide(deployment, arch, draft=drafting)


def _preview(
    job: Job, run: _Run, runtime: BuiltRuntime, configs: Configs, *, reachable: bool
) -> BuildResult:
    """What config.json alone decides."""
    from toolkit.pipeline.architectures import draft_architecture, target_architecture
    from toolkit.pipeline.planning import make_plan
    from toolkit.repository.nvidia import preview_nvidia

    deployment, store = job.deployment, job.workspace
    offline = job.offline or not reachable
    nothing = BuildResult(deployment, tuple(run.done), complete=False, runtime=runtime)
    try:
        arch = target_architecture(deployment, store, model_config=configs.model, offline=offline)
    except (EnvironmentError_, SpecError):
        if configs.model is not None:
            raise
        return nothing
    try:
        drafting = draft_architecture(
            deployment, arch, store, model_config=configs.draft, offline=offline
        )
    except (EnvironmentError_, SpecError):
        if configs.draft is not None:
            raise
        drafting = None  # everything but the draft's own sizes is checked all the same
    plan = make_plan(deployment, arch, draft=drafting)
    if runtime == "openvino":
        return replace(nothing, commands=plan.commands)
    pinned = stages.settled(deployment, plan.resolved, runtime=runtime, release=plan.release)
    tokens = plan.memory.kv_tokens if plan.memory else None
    place = PurePosixPath(NOWHERE)
    texts = preview_nvidia(pinned, arch, place, draft=drafting, kv_tokens=tokens)
    return replace(nothing, commands=plan.commands, preview=texts)


def _for_cpu(job: Job, run: _Run, checkpoint: Artifact) -> bool:
    from toolkit.checkpoint import read_architecture
    from toolkit.pipeline import references

    resolved = stages.check(job, read_architecture(checkpoint.path))
    quantized = run("quantized", lambda: stages.quantize(job, checkpoint, resolved))
    drafting = run.maybe("draft", lambda: stages.draft(job, checkpoint))
    engine = run("engine", lambda: stages.compile_engine(job, quantized, drafting))
    run.maybe("references", lambda: references.record(job, quantized))
    run("repository", lambda: stages.render(job, engine, quantized, resolved))
    return True


def _for_gpus(job: Job, run: _Run, checkpoint: Artifact, configs: Configs | None) -> BuildResult:
    """What there is to tell beside the stages; ``configs`` of a dry run only."""
    from toolkit.pipeline import nvidia_stages as nvidia
    from toolkit.pipeline.trtllm_build import require_builder

    drafting = run.maybe("draft", lambda: nvidia.draft(job, checkpoint))
    if configs is not None and drafting is not None and not drafting.reused:
        runtime = resolved_runtime(job.deployment)
        assert runtime != "auto", "resolved"
        return _preview(job, run, runtime, configs, reachable=True)
    work = nvidia.decide(job, checkpoint, drafting)
    commands: tuple[str, ...] = ()
    if work.target.runtime == "pytorch":
        quantized = run("quantized", lambda: stages.quantize(work.job, checkpoint, work.resolved))
        engine = run("engine", lambda: nvidia.assemble(work))
        repository = run("repository", lambda: nvidia.render(work, engine, quantized))
    else:
        if configs is None and not _engine_is_there(work):
            # Before the hour that quantizing takes, not after it.
            require_builder(work.target.release)
        exported = run("exported", lambda: nvidia.export(work))
        small = run.maybe("exported draft", lambda: nvidia.export_draft(work))
        engine = run("engine", lambda: nvidia.engines(work, exported, small))
        repository = run("repository", lambda: nvidia.render(work, engine, checkpoint))
        commands = nvidia.command_lines(work, exported, small, engine)
    texts = nvidia.preview(work, repository) if configs is not None else {}
    return BuildResult(job.deployment, (), True, commands=commands, preview=texts)


def _engine_is_there(work: NvidiaJob) -> bool:
    from toolkit.pipeline import nvidia_stages as nvidia

    store = LookOnly(work.job.workspace.root)
    look = replace(work, job=replace(work.job, workspace=store))
    return nvidia.engines(look, nvidia.export(look), nvidia.export_draft(look)).reused


class _Run:
    """Remembers each stage with the time it took; one that is another's artifact counts once."""

    def __init__(self, keep: Callable[[list[str]], None] | None) -> None:
        self.done: list[StageResult] = []
        self._keep = keep

    def __call__(self, name: str, stage: Callable[[], Artifact]) -> Artifact:
        artifact = self.maybe(name, stage)
        assert artifact is not None
        return artifact

    def maybe(self, name: str, stage: Callable[[], Artifact | None]) -> Artifact | None:
        begun = time.monotonic()
        artifact = stage()
        if artifact and all(artifact.key != each.artifact.key for each in self.done):
            self.done.append(StageResult(name, artifact, time.monotonic() - begun))
            if self._keep:
                self._keep([stage.artifact.key for stage in self.done])
        return artifact


@dataclass(frozen=True)
class LookOnly(Workspace):
    """A workspace for dry runs: finds, never builds."""

    def produce(
        self,
        kind: str,
        inputs: Mapping[str, Json],
        build: Callable[[Path], None],
        *,
        progress: Progress,
        resume: bool = False,
    ) -> Artifact:
        """The artifact if it is there, else an empty one with the key that it would have."""
        key = artifact_key(kind, inputs)
        if found := self.find(kind, key):
            return found
        manifest = Manifest(
            kind=kind,
            key=key,
            inputs={},
            versions={},
            created="",
            duration_s=0,
            peak_memory_bytes=0,
            files={},
        )
        return Artifact(self.root / kind / key[:SHORT_KEY], kind, key, manifest, reused=False)
