"""``toolkit quantize``: one checkpoint in, one checked and judged unified checkpoint out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.options import JsonOption, QuietOption
from toolkit.cli.output import print_json, print_table
from toolkit.cli.progress import command_progress

if TYPE_CHECKING:
    from toolkit.progress import Progress
    from toolkit.quantize import QuantizationReport
    from toolkit.spec.models import Quantization


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("quantize")(quantize)


def quantize(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="A checkpoint directory.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A directory to be made.", show_default=False)
    ],
    weights: Annotated[
        str, typer.Option("--weights", help="none, auto, fp8, int4_awq, w4a8_awq, int8_sq, nvfp4.")
    ] = "fp8",
    kv_cache: Annotated[
        str, typer.Option("--kv-cache", help="none, auto, fp8, int8, nvfp4.")
    ] = "none",
    block_size: Annotated[
        int | None, typer.Option("--block-size", help="AWQ block; chosen from layer widths.")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", metavar="PATTERN", help="Further layers that keep full precision."
        ),
    ] = None,
    calibration: Annotated[
        str, typer.Option("--calibration", help="builtin, a .jsonl or .txt file, or a data set.")
    ] = "builtin",
    samples: Annotated[int, typer.Option("--samples", help="Calibration texts.")] = 128,
    max_length: Annotated[int, typer.Option("--max-length", help="Tokens of one text.")] = 512,
    perplexity_increase: Annotated[
        float | None, typer.Option("--accept-perplexity-increase", help="Relative, e.g. 0.05.")
    ] = None,
    kl_divergence: Annotated[
        float | None, typer.Option("--accept-kl-divergence", help="Mean, nats a token.")
    ] = None,
    top1_agreement: Annotated[
        float | None, typer.Option("--accept-top1-agreement", help="Share, e.g. 0.9.")
    ] = None,
    tensorrt_llm: Annotated[
        bool,
        typer.Option("--tensorrt-llm", help="Write a TensorRT-LLM checkpoint for trtllm-build."),
    ] = False,
    tensor: Annotated[int, typer.Option("--tensor", help="With --tensorrt-llm: GPUs a layer.")] = 1,
    pipeline: Annotated[int, typer.Option("--pipeline", help="With --tensorrt-llm: stages.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Quantize a checkpoint with ModelOpt, check the export and judge its accuracy.

    Exit code 5 where the accuracy gate fails; OUT is written only if everything passed.
    """
    spec = _spec(
        weights=weights,
        kv_cache=kv_cache,
        block_size=block_size,
        exclude=("lm_head", *(exclude or ())),
        calibration={"source": calibration, "samples": samples, "max_length": max_length},
        accept={
            "perplexity_increase": perplexity_increase,
            "kl_divergence": kl_divergence,
            "top1_agreement": top1_agreement,
        },
    )
    if not tensorrt_llm and (tensor, pipeline) != (1, 1):
        raise typer.BadParameter("--tensor and --pipeline go with --tensorrt-llm")
    parts = _partial(out, force)
    try:
        with command_progress(quiet=quiet) as progress:
            if tensorrt_llm:
                report = _tensorrt_llm(checkpoint, spec, parts, tensor, pipeline, progress)
            else:
                report = _unified(checkpoint, spec, parts, progress)
        if out.exists():
            shutil.rmtree(out)
        parts.rename(out)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    _show(out, report, as_json=json)


def _spec(**fields: Any) -> Quantization:
    from pydantic import ValidationError

    from toolkit.errors import SpecError
    from toolkit.spec.models import Quantization

    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return Quantization.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][-1]).replace("_", "-")
        wanted = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise SpecError(
            f"{option} must be {wanted}, not {first['input']}", where="command line"
        ) from None


def _partial(out: Path, force: bool) -> Path:
    from toolkit.errors import SpecError

    if out.exists() and not force and (not out.is_dir() or any(out.iterdir())):
        raise SpecError(
            "the output directory is there already", where=str(out), hint="--force replaces it"
        )
    # Beside the result, so that the rename at the end stays on one file system.
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.with_name(f".{out.name}.{os.getpid()}.partial")


def _unified(
    checkpoint: Path, spec: Quantization, out: Path, progress: Progress
) -> QuantizationReport:
    from toolkit.quantize import quantize as run

    return run(checkpoint, spec, out, progress=progress)


def _tensorrt_llm(
    checkpoint: Path, spec: Quantization, out: Path, tensor: int, pipeline: int, progress: Progress
) -> QuantizationReport:
    from toolkit.quantize.trtllm_export import export_tensorrt_llm as run

    return run(checkpoint, spec, out, tensor=tensor, pipeline=pipeline, progress=progress)


def _show(out: Path, report: QuantizationReport, *, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(out), "report": report.to_json()})
        return
    print_table(str(out), ("figure", "value", "limit"), _rows(report))
    typer.echo(out)


def _rows(report: QuantizationReport) -> list[tuple[str, str, str]]:
    from toolkit.spec.units import format_duration, format_size

    before, after = format_size(report.bytes_before), format_size(report.bytes_after)
    block = f", block {report.block_size}" if report.block_size else ""
    rows = [
        ("weights", f"{report.weights}{block}, {report.quantized_layers} layers", ""),
        ("KV cache", report.kv_cache, ""),
        ("size", f"{before} -> {after}", ""),
    ]
    gate, limits = report.gate, report.limits
    if gate is not None and limits is not None:
        change = f"{gate.perplexity_original:.2f} -> {gate.perplexity_quantized:.2f}"
        rows += [
            (
                "perplexity",
                f"{change} ({gate.perplexity_increase:+.1%})",
                f"{limits.perplexity_increase:+.1%}",
            ),
            ("KL divergence, nats", f"{gate.kl_divergence:.4f}", f"{limits.kl_divergence:.4f}"),
            ("top-1 agreement", f"{gate.top1_agreement:.1%}", f"{limits.top1_agreement:.1%}"),
            ("held-out tokens", str(gate.tokens), ""),
        ]
    if report.seconds:
        rows.append(("time", format_duration(sum(report.seconds.values())), ""))
        rows.append(("peak memory", format_size(report.peak_memory_bytes), ""))
    return rows
