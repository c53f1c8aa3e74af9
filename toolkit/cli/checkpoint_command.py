"""``toolkit checkpoint``: get weights, look at them, check them, carry them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolkit.cli.options import JsonOption, OfflineOption, QuietOption
from toolkit.cli.output import counted, print_json, print_table
from toolkit.cli.progress import command_progress

if TYPE_CHECKING:
    from toolkit.checkpoint import CheckpointReport, CheckpointSummary
    from toolkit.progress import Progress
    from toolkit.workspace import Artifact

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="hf://owner/name@revision, a directory, a .gguf file or sample:NAME.",
        show_default=False,
    ),
]
DirectoryArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="A checkpoint directory.", show_default=False)
]
PickleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-pickle", metavar="NAME", help="Accept this pickle file; it is converted."
    ),
]
DirOption = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="DIR", help="Default $TOOLKIT_WORKSPACE or ./.toolkit."),
]


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="Get, inspect, verify and pack weights.")
    group.command("fetch")(fetch)
    group.command("inspect")(inspect)
    group.command("verify")(verify)
    group.command("pack")(pack)
    group.command("unpack")(unpack)
    app.add_typer(group, name="checkpoint")


def fetch(
    source: SourceArgument,
    workspace: DirOption = None,
    allow_pickle: PickleOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Download or convert a model into the workspace, verified, and print where it is."""
    with command_progress(quiet=quiet) as progress:
        artifact = _fetch(source, workspace, allow_pickle, offline, progress)
    if json:
        print_json(
            {
                "path": str(artifact.path),
                "key": artifact.key,
                "reused": artifact.reused,
                "size": artifact.manifest.size,
                "notes": artifact.manifest.notes,
            }
        )
    else:
        typer.echo(artifact.path)


def inspect(
    source: SourceArgument,
    workspace: DirOption = None,
    allow_pickle: PickleOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show architecture, parameters, bytes by type and KV-cache bytes per token."""
    from toolkit.checkpoint import inspect as summarize
    from toolkit.errors import SpecError, ValidationFailed

    if Path(source).expanduser().is_dir():
        try:
            summary = summarize(Path(source).expanduser())
        except SpecError as error:  # the argument is right, what lies there is not
            raise ValidationFailed(
                error.message, where=error.where, hint=error.hint, details=error.details
            ) from error
    else:
        with command_progress(quiet=quiet) as progress:
            artifact = _fetch(source, workspace, allow_pickle, offline, progress)
        summary = summarize(artifact.path)
    if json:
        print_json(summary.as_json())
    else:
        _print_summary(summary)


def verify(
    directory: DirectoryArgument,
    allow_pickle: PickleOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every tensor; find NaN and infinities.")
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check that a checkpoint is whole, sound and safe; exit code 5 if it is not."""
    from toolkit.checkpoint import examine
    from toolkit.errors import ValidationFailed

    with command_progress(quiet=quiet) as progress:
        report = examine(directory, allow_pickle or (), deep=deep, progress=progress)
    if json:
        print_json(_report_json(report))
    else:
        _print_report(report)
    if report.faults:
        first = report.faults[0]
        raise ValidationFailed(first.message, where=first.where, hint=first.hint)


def pack(
    source: SourceArgument,
    archive: Annotated[
        Path, typer.Argument(metavar="ARCHIVE", help="A .tar, .tar.gz or .tar.zst file to write.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace the archive.")] = False,
    workspace: DirOption = None,
    allow_pickle: PickleOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a checkpoint as one archive for a machine without network."""
    from toolkit.checkpoint import pack as write_archive
    from toolkit.spec.units import format_size

    with command_progress(quiet=quiet) as progress:
        directory = _fetch(source, workspace, allow_pickle, offline, progress).path
        packed = write_archive(directory, archive, progress, force=force)
    if json:
        print_json(
            {"path": str(packed.path), "files": packed.files, "size": packed.size,
             "sha256": packed.sha256}
        )  # fmt: skip
        return
    typer.echo(f"{packed.path}: {counted(packed.files, 'file')}, {format_size(packed.size)}")
    typer.echo(f"sha256 {packed.sha256}")


def unpack(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="Made by pack.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory to be made.")],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Unpack and verify an archive; use the directory as model.source then."""
    from toolkit.checkpoint import unpack as read_archive

    with command_progress(quiet=quiet) as progress:
        report = read_archive(archive, directory, progress)
    if json:
        print_json(_report_json(report))
    else:
        _print_report(report)


def _fetch(
    source: str,
    workspace: Path | None,
    allow_pickle: list[str] | None,
    offline: bool,
    progress: Progress,
) -> Artifact:
    from toolkit.checkpoint import fetch as fetch_checkpoint
    from toolkit.spec.models import ModelSource
    from toolkit.workspace import Workspace, default_root

    model = ModelSource(source=source, allow_pickle=tuple(allow_pickle or ()))
    store = Workspace(workspace or default_root())
    return fetch_checkpoint(model, store, progress=progress, offline=offline)


def _print_summary(summary: CheckpointSummary) -> None:
    from toolkit.spec.units import format_size

    arch = summary.architecture
    parameters = summary.parameters
    rows = [
        ("model type", arch.model_type),
        ("parameters", f"{parameters:,}" if parameters else "unknown (packed weights)"),
        ("quantization", summary.quantization or "none"),
        ("layers", arch.num_layers),
        ("hidden size", arch.hidden_size),
        (
            "attention heads",
            f"{arch.num_heads}, KV heads {arch.num_kv_heads}, head size {arch.head_dim}",
        ),
        ("MLP width", arch.intermediate_size),
        ("vocabulary", arch.vocab_size),
        ("context", f"{arch.max_position} tokens"),
        ("rope base", f"{arch.rope_theta:g}"),
        ("rope scaling", arch.rope_scaling or "none"),
        ("tied embeddings", "yes" if arch.tied_embeddings else "no"),
        ("end tokens", ", ".join(map(str, arch.eos_token_ids)) or "none"),
        *(
            (f"KV cache per token, {width}", format_size(size))
            for width, size in summary.kv_bytes_per_token.items()
        ),
        ("weights", f"{format_size(summary.bytes)} in {counted(summary.files, 'file')}"),
    ]
    print_table(str(summary.path), ("property", "value"), rows)
    print_table(
        "",
        ("type", "tensors", "elements", "size"),
        (
            (name, share.tensors, f"{share.elements:,}", format_size(share.bytes))
            for name, share in summary.by_dtype.items()
        ),
        right="tensors,elements,size",
    )


def _print_report(report: CheckpointReport) -> None:
    rows = [
        ("FAULT" if problem.fatal else "note", problem.message, problem.where)
        for problem in report.problems
    ]
    if rows:
        print_table(str(report.path), ("grade", "what", "where"), rows)
    read = [counted(len(report.files), "file"), counted(report.tensors, "tensor")]
    read.append(counted(report.digests_checked, "digest"))
    read.append("all values" if report.values_checked else "values not read (--deep)")
    state = "unusable" if report.faults else "sound"
    typer.echo(f"{report.path}: {state}; checked: {', '.join(read)}")


def _report_json(report: CheckpointReport) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "path": str(report.path),
        "sound": not report.faults,
        "files": list(report.files),
        "tensors": report.tensors,
        "digests_checked": report.digests_checked,
        "values_checked": report.values_checked,
        "problems": [asdict(problem) for problem in report.problems],
    }
