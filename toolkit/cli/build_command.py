"""``toolkit build FILE``: everything from weights to a checked Triton repository."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from toolkit.cli.options import (
    DraftConfigOption,
    FileArgument,
    JsonOption,
    ModelConfigOption,
    OfflineOption,
    QuietOption,
    SetOption,
    WorkspaceOption,
)
from toolkit.cli.output import print_json, print_table
from toolkit.cli.progress import command_progress
from toolkit.errors import SpecError
from toolkit.pipeline import BuildResult, Configs, StageResult, build
from toolkit.spec.loading import load
from toolkit.spec.units import format_duration, format_size
from toolkit.workspace import Workspace, default_root
from toolkit.workspace.manifest import SHORT_KEY


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("build")(build_command)


def build_command(
    file: FileArgument,
    set_: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be run and written.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="LINK", help="Link to the rendered repository."),
    ] = None,
    where: Annotated[
        Literal["local", "container"],
        typer.Option("--where", help="Here, or in the container image of the release."),
    ] = "local",
    model_config: ModelConfigOption = None,
    draft_config: DraftConfigOption = None,
    offline: OfflineOption = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fetch, quantize, compile and render what FILE describes; only what is missing.

    Killed or interrupted, the same command continues with the first unfinished stage.
    """
    _check_output(output)
    deployment = load(file, overrides=set_ or ()).resolved()
    store = Workspace(workspace or default_root(file))
    if where == "container":
        from toolkit.cli.build_in_container import build_in_container

        build_in_container(
            *(file, deployment, store.root, set_ or [], output),
            dry_run=dry_run,
            offline=offline,
            json=json,
            quiet=quiet,
        )
        return
    with command_progress(quiet=quiet) as progress:
        result = build(
            deployment,
            store,
            progress=progress,
            offline=offline,
            dry_run=dry_run,
            configs=Configs(model_config, draft_config),
        )
    if output and result.complete and not dry_run:
        _link(output, result.repository.absolute())
    if json:
        print_json(_as_json(result, dry_run))
    else:
        _print_summary(result, dry_run)
        if output and result.complete and not dry_run:
            typer.echo(f"link: {output}")


def _print_summary(result: BuildResult, dry_run: bool) -> None:
    if result.stages:
        print_table(
            f"{result.deployment.name}: {'what a build would do' if dry_run else 'built'}",
            ("stage", "key", "state", "took", "memory", "size", "remarks"),
            (_row(stage, dry_run) for stage in result.stages),
            right="took,memory,size",
        )
    for command in result.commands if dry_run else ():
        typer.echo(f"\n{command}")
    for place, text in result.preview.items():
        typer.echo(f"\n# {place}\n{text}", nl=False)
    if not result.complete:
        known = bool(result.commands or result.preview)
        if result.obstacle:
            hint = "" if known else "; --model-config FILE tells what config.json decides"
            typer.echo(f"note: {result.obstacle}{hint}", err=True)
        more = "further stages" if known or result.stages else "what a build would do"
        typer.echo(f"{more} can be told once the checkpoint is there")
    elif not dry_run:
        typer.echo(f"repository: {result.repository}")


def _row(stage: StageResult, dry_run: bool) -> tuple[str, ...]:
    artifact = stage.artifact
    name, key = stage.name, artifact.key[:SHORT_KEY]
    if dry_run and not artifact.reused:
        return name, key, "to be built", "", "", "", ""
    manifest = artifact.manifest
    return (
        name,
        key,
        "reused" if artifact.reused else "built",
        format_duration(stage.seconds),
        "" if artifact.reused else format_size(manifest.peak_memory_bytes),
        format_size(manifest.size),
        _remarks(name, manifest.notes),
    )


def _remarks(stage: str, notes: Any) -> str:
    """What is worth knowing of a stage's own figures."""
    if not isinstance(notes, dict):
        return ""
    if stage == "checkpoint":
        return str(notes.get("source", ""))
    if stage == "quantized" and notes.get("gate"):
        gate = notes["gate"]
        return (
            f"perplexity {gate['perplexity_original']:.2f} -> {gate['perplexity_quantized']:.2f}, "
            f"top-1 {gate['top1_agreement']:.1%}"
        )
    if stage == "draft" and "acceptance" in notes:
        return f"{len(notes['layers'])} layers, acceptance {notes['acceptance']:.1%}"
    if stage == "engine" and "target" in notes:
        carried = notes["target"]["carried"]
        counts = ((how.removeprefix("none "), count) for how, count in carried.items())
        return ", ".join(f"{count} {how}" for how, count in counts)
    if stage == "repository" and notes.get("warnings"):
        return f"{len(notes['warnings'])} warnings: {notes['warnings'][0]}"
    return ""


def _as_json(result: BuildResult, dry_run: bool) -> dict[str, Any]:
    return {
        "deployment": result.deployment.name,
        "dry_run": dry_run,
        "complete": result.complete,
        "obstacle": result.obstacle or None,
        "runtime": result.runtime,
        "commands": list(result.commands),
        "files": dict(result.preview),
        "repository": str(result.repository) if result.complete else None,
        "stages": [
            {
                "name": stage.name,
                "key": stage.artifact.key,
                "path": str(stage.artifact.path),
                "reused": stage.artifact.reused,
                "seconds": round(stage.seconds, 3),
                "size": stage.artifact.manifest.size,
                "peak_memory_bytes": stage.artifact.manifest.peak_memory_bytes,
                "notes": stage.artifact.manifest.notes,
            }
            for stage in result.stages
        ],
    }


def _check_output(output: Path | None) -> None:
    """Before an hour of work, not after it."""
    if output is not None and output.exists() and not output.is_symlink():
        raise SpecError(
            "there is something that is not a link already",
            where=str(output),
            hint="--output makes a link: give a path that is free or an earlier link",
        )


def _link(output: Path, target: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    temporary.symlink_to(target)
    temporary.replace(output)
