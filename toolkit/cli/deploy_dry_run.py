"""``toolkit deploy FILE --dry-run``: what would be built, run and written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from toolkit.cli.output import print_json, print_table

if TYPE_CHECKING:
    from toolkit.pipeline import BuildResult, Configs
    from toolkit.serving.dry_run import DryRun
    from toolkit.spec.models import Deployment, Runtime
    from toolkit.workspace import Workspace


def show(deployment: Deployment, store: Workspace, configs: Configs, *, json: bool) -> None:
    """Print what the build and the launch would do; ``configs`` is known of models not fetched."""
    from toolkit.pipeline.beside import foreseen
    from toolkit.serving.dry_run import describe

    built = _stages(deployment, store, configs)
    repository = _repository(built, store)
    alone = describe(deployment, _runtime(built), repository, store.root)
    found = foreseen(alone, deployment, store.root)
    if json:
        print_json(_as_json(built, repository, found))
    else:
        _print(built, repository, found)


def _stages(deployment: Deployment, store: Workspace, configs: Configs) -> BuildResult:
    """The build's stages as far as this machine alone can tell them."""
    from toolkit.errors import EnvironmentError_
    from toolkit.pipeline import BuildResult, build
    from toolkit.progress import Silent

    try:
        return build(
            deployment, store, progress=Silent(), offline=True, dry_run=True, configs=configs
        )
    except EnvironmentError_:
        return BuildResult(deployment, (), complete=False)


def _runtime(built: BuildResult) -> Runtime:
    """The file's own word counts as long as the build cannot tell."""
    chosen = built.deployment.engine.runtime
    return built.runtime if chosen == "auto" or built.complete else chosen


def _repository(built: BuildResult, store: Workspace) -> Path:
    if built.artifact("repository") is not None:
        return built.repository
    return store.root / "repository" / "<key>" / "repository"


def _as_json(built: BuildResult, repository: Path, found: DryRun) -> dict[str, Any]:
    return {
        "deployment": built.deployment.name,
        "dry_run": True,
        "build": {
            "complete": built.complete,
            "repository": str(repository),
            "commands": list(built.commands),
            "files": dict(built.preview),
            "stages": [
                {
                    "name": stage.name,
                    "key": stage.artifact.key,
                    "path": str(stage.artifact.path),
                    "built": stage.artifact.reused,
                }
                for stage in built.stages
            ],
        },
        **found.as_json(),
    }


def _print(built: BuildResult, repository: Path, found: DryRun) -> None:
    print_table(
        f"{built.deployment.name}: what deploying would build",
        ("stage", "state", "where"),
        (
            (
                stage.name,
                "there already" if stage.artifact.reused else "to be built",
                stage.artifact.path,
            )
            for stage in built.stages
        ),
    )
    for command in built.commands:
        typer.echo(f"\n# engine build\n{command}")
    for place, text in built.preview.items():
        typer.echo(f"\n# {place}\n{text}", nl=False)
    if not built.complete:
        typer.echo("the stages that follow can be told once the checkpoint is there")
    typer.echo(f"\n# the {found.launcher} launcher would run, serving {repository}")
    for step in found.steps:
        typer.echo(f"\n# {step.why}")
        if step.command:
            typer.echo(step.line)
    typer.echo("\n# with these variables")
    for name, value in found.environment.items():
        typer.echo(f"{name}={value}")
    typer.echo("\n# and write")
    for path, why in found.files.items():
        typer.echo(f"{path}  # {why}")
    typer.echo("")
    for note in found.notes:
        typer.echo(f"# {note}")
