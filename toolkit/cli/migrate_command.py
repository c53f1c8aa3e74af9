"""``toolkit migrate FILE --to RELEASE``: from TensorRT engines to the LLM API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.options import FileArgument, JsonOption
from toolkit.cli.output import print_json

if TYPE_CHECKING:
    from toolkit.pipeline.migration import Change, Migration
    from toolkit.pipeline.migration_rules import Rule

ToOption = Annotated[
    str, typer.Option("--to", metavar="RELEASE", help="A TensorRT-LLM release, such as 1.3.0rc27.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Where the new file goes; stdout if absent."
    ),
]
ModelConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--model-config",
        metavar="FILE",
        help="The model's config.json: the result is planned with it too.",
        show_default=False,
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite --output.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("migrate")(migrate_command)


def migrate_command(
    file: FileArgument,
    to: ToOption,
    output: OutputOption = None,
    model_config: ModelConfigOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Rewrite FILE for the LLM API and say what changed, and what has no counterpart.

    FILE itself is not touched. The new file is printed, or written to --output; the report goes
    to stderr.
    """
    from toolkit.pipeline.migration import migrate, read_text
    from toolkit.spec.loading import load
    from toolkit.spec.writing import write_text

    loaded = load(file, environ=_without_overrides())
    made = migrate(loaded, read_text(file), to)
    if model_config is not None:
        _plan(loaded.path, made, model_config)
    if output is not None:
        write_text(output, made.text, force=force)
    if json:
        print_json(_as_json(made, output))
        return
    if output is None:
        typer.echo(made.text, nl=False)
    _report(made, output)


def _without_overrides() -> dict[str, str]:
    """``${NAME}`` is looked up; ``TOOLKIT__`` variables are not part of the file."""
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("TOOLKIT__")}


def _plan(path: Path, made: Migration, model_config: Path) -> None:
    """Refuse now what the build would refuse."""
    from toolkit.pipeline.architectures import target_architecture
    from toolkit.pipeline.planning import make_plan
    from toolkit.workspace import Workspace, default_root

    store = Workspace(default_root(path))
    arch = target_architecture(made.deployment, store, model_config=model_config, offline=True)
    make_plan(made.deployment, arch)


def _report(made: Migration, output: Path | None) -> None:
    lines = [f"# {made.deployment.name}: for the LLM API of {made.release.title}"]
    lines += [line for change in made.changes for line in _told(change)]
    for each in made.meanings:
        lines.append(f"# MEANS SOMETHING ELSE: {each.field}: absent")
        lines.append(_reason(each))
    lines += [f"# rebuilt: {each.field}: {each.instead} ({each.source})" for each in made.rebuilt]
    if made.rewritten:
        lines.append("# the file was written anew: its comments are in the old one only")
    if made.release.container is None:
        lines.append(
            f"# no Triton image with {made.release.title} is known: build one (make -C docker "
            f"tritonrelease_build IMAGE_TAG={made.release.version} in a checkout of the release) "
            f"and set serving.image: {made.release.built_image}"
        )
    for line in lines:
        typer.echo(line, err=True)
    if output is not None:
        typer.echo(f"# written to {output}; next: toolkit plan {output}", err=True)


def _told(change: Change) -> list[str]:
    from toolkit.spec.writing import scalar

    before, after = (
        "absent" if value is None else scalar(value) for value in (change.before, change.after)
    )
    mark = "changed" if change.exact else "NO COUNTERPART"
    return [
        f"# {mark}: {change.field}: {before} -> {after}",
        _reason(change.rule),
    ]


def _reason(rule: Rule) -> str:
    return f"#   {rule.gone}; instead: {rule.instead} ({rule.source})"


def _as_json(made: Migration, output: Path | None) -> dict[str, Any]:
    return {
        "deployment": made.deployment.name,
        "release": made.release.version,
        "output": str(output) if output else None,
        "text": made.text,
        "comments_kept": not made.rewritten,
        "changes": [
            {
                "field": change.field,
                "before": change.before,
                "after": change.after,
                "exact": change.exact,
                "gone": change.rule.gone,
                "instead": change.rule.instead,
                "source": change.rule.source,
            }
            for change in made.changes
        ],
        "meanings": [
            {
                "field": each.field,
                "why": each.gone,
                "instead": each.instead,
                "source": each.source,
            }
            for each in made.meanings
        ],
        "rebuilt": [
            {"what": each.field, "why": each.gone, "instead": each.instead, "source": each.source}
            for each in made.rebuilt
        ],
    }
