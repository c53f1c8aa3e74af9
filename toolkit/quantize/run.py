"""Quantize a checkpoint: the one call that the pipeline and the command line make."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

from toolkit.checkpoint.architecture import read_architecture
from toolkit.checkpoint.verification import verify
from toolkit.errors import EnvironmentError_
from toolkit.progress import Progress
from toolkit.quantize.check import check
from toolkit.quantize.child import run_job
from toolkit.quantize.modelopt_run import weight_bytes
from toolkit.quantize.report import QuantizationReport
from toolkit.spec.models import Quantization
from toolkit.spec.units import format_size

NOTES = "notes.json"
_WORK = ".quantize"
_NEEDED = ("torch", "transformers", "modelopt", "accelerate")


def quantize(
    checkpoint: Path,
    spec: Quantization,
    out: Path,
    *,
    progress: Progress,
    speculation_draft: bool = False,
) -> QuantizationReport:
    """Write the quantized unified checkpoint of ``checkpoint`` into the directory ``out``.

    The result (config.json, hf_quant_config.json, \\*.safetensors, tokenizer files, notes.json
    with the report) appears in ``out`` only after the export check and the accuracy gate have
    passed. With nothing to quantize the checkpoint is copied.

    Args:
        checkpoint: Plain checkpoint directory.
        spec: Formats, calibration and limits.
        out: Directory for the result, made if need be.
        progress: Told of every stage.
        speculation_draft: The checkpoint is a draft model: the gate's figures are reported but
            not judged, since a worse draft costs speed and never changes the output.

    Raises:
        SpecError: the checkpoint is damaged or a pickle.
        SpecError, UnsupportedError: before any weight is read, see :func:`check`.
        EnvironmentError_: ModelOpt is not installed, or too little disk space.
        ValidationFailed: the export check or the accuracy gate did not pass.
        BuildError: ModelOpt failed; the end of its log is attached.
    """
    verify(checkpoint, digests=False)
    resolved = check(read_architecture(checkpoint), spec)
    out.mkdir(parents=True, exist_ok=True)
    work = out / _WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        if resolved.changes_nothing:
            report = _copied(checkpoint, work, progress)
        else:
            require_modelopt()
            check_space(checkpoint, work)
            report = _in_child(checkpoint, spec, work, progress, judged=not speculation_draft)
        for file in sorted((work / "out").iterdir()):
            file.replace(out / file.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    notes = json.dumps(report.to_json(), indent=2)
    (out / NOTES).write_text(notes + "\n", encoding="utf-8")
    return report


def require_modelopt() -> None:
    """Raise :class:`EnvironmentError_` unless what quantization needs is installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentError_(
            f"quantization needs {', '.join(missing)}, not installed here",
            hint="pip install 'triton-trtllm-toolkit[quantize]' (for a CPU, install torch from "
            "its CPU index first)",
        )


def _in_child(
    checkpoint: Path, spec: Quantization, work: Path, progress: Progress, *, judged: bool
) -> QuantizationReport:
    (work / "out").mkdir()
    (work / "scratch").mkdir()
    request = {
        "checkpoint": str(checkpoint.resolve()),
        "spec": spec.model_dump(mode="json"),
        "out": str((work / "out").resolve()),
        "scratch": str((work / "scratch").resolve()),
        "judged": judged,
    }
    return QuantizationReport.from_json(run_job("quantize", request, progress=progress))


def _copied(checkpoint: Path, work: Path, progress: Progress) -> QuantizationReport:
    progress.start("copy the checkpoint (nothing to quantize)")
    shutil.copytree(checkpoint, work / "out", ignore=shutil.ignore_patterns("manifest.json", ".*"))
    size = weight_bytes(checkpoint)
    progress.finish(format_size(size))
    return QuantizationReport(
        weights="none",
        kv_cache="none",
        block_size=None,
        quantized_layers=0,
        calibration_source="",
        calibration_samples=0,
        calibration_tokens=0,
        bytes_before=size,
        bytes_after=size,
    )


def check_space(checkpoint: Path, work: Path) -> None:
    """Raise :class:`EnvironmentError_` where ``work`` lacks the room of a quantization."""
    # The recorded model in float32, the log probabilities, and the result.
    needed = 4 * weight_bytes(checkpoint) + 10**9
    free = shutil.disk_usage(work).free
    if free < needed:
        raise EnvironmentError_(
            f"quantization needs {format_size(needed)} of disk space, {format_size(free)} are free",
            where=str(work),
            hint="free space, or put the workspace on another disk",
        )
