"""``toolkit schema``: the JSON Schema of the deployment file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("schema")(schema)


def schema(
    output: Annotated[
        Path | None, typer.Option(help="The file to write; printed if absent.")
    ] = None,
) -> None:
    """Print the deployment file's JSON Schema, for editors and other tools.

    An editor with YAML support completes and checks the file when it begins with
    # yaml-language-server: $schema=PATH
    """
    from toolkit.spec.schema import schema_text
    from toolkit.spec.writing import write_text

    if output is None:
        typer.echo(schema_text(), nl=False)
        return
    write_text(output, schema_text(), force=True)
    typer.echo(f"wrote {output}")
