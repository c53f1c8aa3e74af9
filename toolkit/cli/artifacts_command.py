"""``toolkit artifacts``: what is in the workspace, is it intact, and away with the old."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.cli.options import JsonOption, QuietOption
from toolkit.cli.output import counted, print_json, print_table
from toolkit.cli.progress import command_progress
from toolkit.errors import SpecError, ValidationFailed
from toolkit.spec.units import format_duration, format_size
from toolkit.workspace import Artifact, Workspace, default_root, root_at, users_by_key
from toolkit.workspace.manifest import MANIFEST, SHORT_KEY

DirOption = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="DIR", help="Default $TOOLKIT_WORKSPACE or ./.toolkit."),
]


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="List, verify and prune what was built.")
    group.command("list")(list_artifacts)
    group.command("verify")(verify)
    group.command("prune")(prune)
    app.add_typer(group, name="artifacts")


def list_artifacts(workspace: DirOption = None, json: JsonOption = False) -> None:
    """Show every artifact: stage, key, size, cost, and which deployments use it."""
    store = _open(workspace)
    users = users_by_key(store.root)
    found = store.list()
    if json:
        print_json(
            [
                {
                    "path": str(artifact.path),
                    "used_by": users.get(artifact.key, []),
                    "size": artifact.manifest.size,
                    **artifact.manifest.model_dump(mode="json", exclude={"files"}),
                }
                for artifact in found
            ]
        )
        return
    print_table(
        f"{counted(len(found), 'artifact')} in {store.root}",
        ("stage", "key", "size", "built", "took", "memory", "used by"),
        (
            (
                artifact.kind,
                artifact.key[:SHORT_KEY],
                format_size(artifact.manifest.size),
                artifact.manifest.created,
                format_duration(artifact.manifest.duration_s),
                format_size(artifact.manifest.peak_memory_bytes),
                ", ".join(users.get(artifact.key, [])) or "-",
            )
            for artifact in found
        ),
        right="size,took,memory",
    )


def verify(
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Beginnings of keys; all if none."),
    ] = None,
    workspace: DirOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read every file of the artifacts and compare with its recorded SHA-256."""
    store = _open(workspace)
    chosen = [
        artifact
        for artifact in store.list()
        if not keys or any(artifact.key.startswith(key) for key in keys)
    ]
    torn = [
        path
        for path in store.unreadable()
        if not keys or any(path.name.startswith(key[:SHORT_KEY]) for key in keys)
    ]
    if keys and not chosen and not torn:
        raise SpecError(
            f"no artifact has a key that begins with {' or '.join(keys)}",
            where=str(store.root),
            hint="toolkit artifacts list",
        )
    with command_progress(quiet=quiet) as progress:
        problems = {artifact.path: store.verify(artifact, progress) for artifact in chosen}
    problems |= {path: [f"{MANIFEST} is missing or unreadable"] for path in torn}
    if json:
        print_json({str(path): found for path, found in problems.items()})
    else:
        _print_states(chosen, problems)
    damaged = [path for path, found in problems.items() if found]
    if damaged:
        raise ValidationFailed(
            f"{len(damaged)} of {len(problems)} artifacts are damaged",
            where=str(store.root),
            hint="delete them; the next build makes them again",
            details=[f"rm -r {path}" for path in damaged],
        )


def _print_states(chosen: list[Artifact], problems: dict[Path, list[str]]) -> None:
    files = {artifact.path: len(artifact.manifest.files) for artifact in chosen}
    print_table(
        "",
        ("stage", "key", "files", "state"),
        (
            (path.parent.name, path.name, files.get(path, "?"), "; ".join(found[:3]) or "intact")
            for path, found in problems.items()
        ),
        right="files",
    )


def prune(
    everything: Annotated[
        bool, typer.Option("--all", help="Also what the latest builds of deployments use.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    workspace: DirOption = None,
    json: JsonOption = False,
) -> None:
    """Remove what no deployment's latest build uses, and what killed builds left behind.

    What a running server reads stays in any case.
    """
    store = _open(workspace)
    keep = _served(store.root) | (set() if everything else set(users_by_key(store.root)))
    done = store.prune(keep, dry_run=dry_run)
    if json:
        print_json(
            {
                "removed": [str(artifact.path) for artifact in done.artifacts],
                "leftovers": [str(path) for path in done.leftovers],
                "bytes": done.bytes,
                "dry_run": dry_run,
            }
        )
        return
    verb = "would remove" if dry_run else "removed"
    for artifact in done.artifacts:
        typer.echo(f"{verb} {artifact.path}")
    for path in done.leftovers:
        typer.echo(f"{verb} {path} (unfinished)")
    typer.echo(f"{verb} {format_size(done.bytes)} in all")


def _served(root: Path) -> set[str]:
    """Keys of the repositories that servers run from: their large files are links into these."""
    from toolkit.serving.state import ENDED, run_directories

    states = [directory.read() for directory in run_directories(root)]
    return {
        state.repository_digest
        for state in states
        if state and state.alive and state.status not in ENDED
    }


def _open(root: Path | None) -> Workspace:
    return Workspace(root_at(root) if root else default_root())
