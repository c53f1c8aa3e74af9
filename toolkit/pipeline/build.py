"""Build a deployment: run the stages in order, or say which ones would run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.pipeline import stages
from toolkit.pipeline.stages import BuiltRuntime, Job
from toolkit.progress import Progress
from toolkit.spec.models import Deployment
from toolkit.workspace import Artifact, Json, Manifest, Workspace, record_use
from toolkit.workspace.manifest import SHORT_KEY, artifact_key


@dataclass(frozen=True)
class StageResult:
    """One stage of a build; ``seconds`` is what it took this time."""

    name: str
    artifact: Artifact
    seconds: float


@dataclass(frozen=True)
class BuildResult:
    """What a build made or found: the stages in order, the last one being the repository."""

    deployment: Deployment
    stages: tuple[StageResult, ...]
    complete: bool
    runtime: BuiltRuntime = "openvino"

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
) -> BuildResult:
    """Make whatever is missing for ``deployment``; what is there already is taken as it is.

    Args:
        deployment: What is wanted.
        workspace: Where artifacts are found and put.
        progress: Told about every long operation.
        offline: Use no network; what is missing locally is an error that says so.
        dry_run: Build nothing. The result's artifacts have ``reused`` false where a build would
            have to work; without the checkpoint nothing beyond it can be told, and ``complete``
            is false.

    Raises:
        SpecError, UnsupportedError, EnvironmentError_, BuildError, ValidationFailed: by stage.
    """
    from toolkit.checkpoint import read_architecture

    job = Job(deployment, LookOnly(workspace.root) if dry_run else workspace, progress, offline)
    run = _Run()
    checkpoint = run("checkpoint", lambda: stages.fetch(job))
    if dry_run and not checkpoint.reused:
        return BuildResult(deployment, tuple(run.done), complete=False)
    resolved = stages.check(job, read_architecture(checkpoint.path))
    quantized = run("quantized", lambda: stages.quantize(job, checkpoint, resolved))
    drafting = run.maybe("draft", lambda: stages.draft(job, checkpoint))
    engine = run("engine", lambda: stages.compile_engine(job, quantized, drafting))
    run("repository", lambda: stages.render(job, engine, quantized, resolved))
    result = BuildResult(deployment, tuple(run.done), complete=True)
    if not dry_run:
        record_use(workspace.root, deployment.name, [each.artifact.key for each in run.done])
    return result


class _Run:
    """Remembers each stage with the time it took; one that is another's artifact counts once."""

    def __init__(self) -> None:
        self.done: list[StageResult] = []

    def __call__(self, name: str, stage: Callable[[], Artifact]) -> Artifact:
        artifact = self.maybe(name, stage)
        assert artifact is not None
        return artifact

    def maybe(self, name: str, stage: Callable[[], Artifact | None]) -> Artifact | None:
        begun = time.monotonic()
        artifact = stage()
        if artifact and all(artifact.key != each.artifact.key for each in self.done):
            self.done.append(StageResult(name, artifact, time.monotonic() - begun))
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
