"""``toolkit schema``: the JSON Schemas of the files that the toolkit reads and writes."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Kind(str, Enum):
    """Files that have a schema."""

    deployment = "deployment"
    fleet = "fleet"
    bench_report = "bench-report"
    bench_comparison = "bench-comparison"
    bench_ablation = "bench-ablation"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("schema")(schema)


def schema(
    output: Annotated[
        Path | None, typer.Option(help="The file to write; printed if absent.")
    ] = None,
    kind: Annotated[
        Kind, typer.Option("--kind", help="What file, read or written by the toolkit.")
    ] = Kind.deployment,
) -> None:
    """Print the deployment file's JSON Schema, or another file's, for editors and other tools.

    An editor with YAML support completes and checks the file when it begins with
    # yaml-language-server: $schema=PATH
    """
    from toolkit.spec.schema import schema_text
    from toolkit.spec.writing import write_text

    text = schema_text(_of(kind))
    if output is None:
        typer.echo(text, nl=False)
        return
    write_text(output, text, force=True)
    typer.echo(f"wrote {output}")


def _of(kind: Kind) -> dict[str, object]:
    from toolkit.bench import schema as bench
    from toolkit.spec import schema as spec

    makers = {
        Kind.deployment: spec.deployment_schema,
        Kind.fleet: spec.fleet_schema,
        Kind.bench_report: bench.report_schema,
        Kind.bench_comparison: bench.comparison_schema,
        Kind.bench_ablation: bench.ablation_schema,
    }
    return makers[kind]()
