"""``toolkit init``: write a commented deployment file to start from."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Goal(str, Enum):
    """What the deployment is tuned for."""

    latency = "latency"
    throughput = "throughput"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("init")(init)


def init(
    model: Annotated[
        str,
        typer.Option(
            help="hf://owner/name@revision, a folder, a .gguf file or sample:smollm2-135m."
        ),
    ],
    gpu: Annotated[
        str, typer.Option(help="Target: A10, A100-80, L4, L40S, H100, H200, B200 ... or cpu.")
    ] = "cpu",
    goal: Annotated[
        Goal, typer.Option("--for", help="Short waits, or many tokens a second.")
    ] = Goal.latency,
    name: Annotated[
        str | None, typer.Option(help="What clients call it; taken from the model if absent.")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="The file to write; - prints it.", allow_dash=True)
    ] = Path("deploy.yaml"),
    schema: Annotated[
        str | None, typer.Option(help="JSON Schema to name in the file, for editors.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented deployment file for a model and a GPU."""
    from toolkit.checkpoint.sources import check_source
    from toolkit.spec.gpus import find_gpu
    from toolkit.spec.presets import check_name, choose, render
    from toolkit.spec.writing import write_text

    if not Path(model).exists():
        check_name(model)
    here = check_source(model)
    to_file = str(output) != "-"
    source = _seen_from(output, model) if to_file else model
    target = None if gpu.lower() == "cpu" else find_gpu(gpu)
    text = render(
        choose(source, gpu=target, goal=goal.value, name=name, context=_context(here)),
        schema=schema,
    )
    if not to_file:
        typer.echo(text, nl=False)
        return
    write_text(output, text, force=force)
    typer.echo(f"wrote {output}; next: toolkit build {output}")


def _context(directory: Path | None) -> int | None:
    """The longest sequence of a checkpoint that lies here."""
    from toolkit.checkpoint import read_architecture
    from toolkit.checkpoint.architecture import CONFIG

    if directory is None or not (directory / CONFIG).is_file():
        return None
    return read_architecture(directory).max_position


def _seen_from(output: Path, source: str) -> str:
    """``source`` as the file at ``output`` has to write it: its paths count from its own folder."""
    path = Path(source)
    if path.is_absolute() or not path.exists():
        return source
    relative = os.path.relpath(path, output.resolve().parent)
    return relative if relative.startswith(".") else f"./{relative}"
