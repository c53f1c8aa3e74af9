"""Write a TensorRT-LLM checkpoint (config.json and one safetensors file a rank).

``trtllm-build`` of TensorRT-LLM up to 1.2 makes engines from it. ModelOpt writes it; what ModelOpt
leaves out or gets wrong under transformers 5 (the rope base, first of all) is put right, and every
field is compared with the source by :mod:`toolkit.quantize.trtllm_check`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.checkpoint.architecture import Architecture, read_architecture, read_json
from toolkit.checkpoint.rope import LinearRope, Llama3Rope, OtherRope, YarnRope
from toolkit.checkpoint.verification import verify
from toolkit.errors import UnsupportedError
from toolkit.progress import Progress
from toolkit.quantize.calibration import encode, heldout_samples
from toolkit.quantize.check import ResolvedQuantization, check
from toolkit.quantize.child import run_job
from toolkit.quantize.gate import judge, measure, record_reference
from toolkit.quantize.modelopt_run import (
    HELDOUT_LENGTH,
    Stopwatch,
    calibrate,
    calibration_rows,
    load_model,
    report_of,
)
from toolkit.quantize.report import GateFigures, QuantizationReport
from toolkit.quantize.run import NOTES, check_space, require_modelopt
from toolkit.quantize.trtllm_check import compare_export
from toolkit.spec.models import Quantization

_WORK = ".export"
_DECODERS = {"llama": "llama"}
"""Decoder type of ModelOpt by family; only what has been exported and read back is here."""


def export_tensorrt_llm(
    checkpoint: Path,
    spec: Quantization,
    out: Path,
    *,
    tensor: int = 1,
    pipeline: int = 1,
    progress: Progress,
) -> QuantizationReport:
    """Quantize ``checkpoint`` and write it as a TensorRT-LLM checkpoint into ``out``.

    Args:
        checkpoint: Plain checkpoint directory.
        spec: Formats and calibration.
        out: Directory for config.json, ``rank0.safetensors`` to ``rankN.safetensors`` and
            notes.json with the report; filled only after every check has passed.
        tensor: GPUs that each layer is spread over.
        pipeline: Stages that the layers are dealt out to.
        progress: Told of every stage.

    Raises:
        UnsupportedError: a size that does not divide, a format or family that cannot be written.
        SpecError: the checkpoint is damaged or a pickle.
        EnvironmentError_: ModelOpt is not installed, or too little disk space.
        ValidationFailed: a field or a rank's tensors differ from the source, or the accuracy gate
            did not pass.
        BuildError: ModelOpt failed; the end of its log is attached.
    """
    verify(checkpoint, digests=False)
    arch = read_architecture(checkpoint)
    resolved = check_export(arch, spec, tensor=tensor, pipeline=pipeline)
    require_modelopt()
    work = out / _WORK
    shutil.rmtree(work, ignore_errors=True)
    made, scratch = work / "out", work / "scratch"
    for folder in (made, scratch):
        folder.mkdir(parents=True)
    request = {
        "checkpoint": str(checkpoint.resolve()),
        "spec": spec.model_dump(mode="json"),
        "out": str(made.resolve()),
        "scratch": str(scratch.resolve()),
        "tensor": tensor,
        "pipeline": pipeline,
    }
    try:
        check_space(checkpoint, work)
        values = run_job("export_tensorrt_llm", request, progress=progress)
        compare_export(arch, resolved, made, tensor=tensor, pipeline=pipeline)
        for file in sorted(made.iterdir()):
            file.replace(out / file.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    (out / NOTES).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return QuantizationReport.from_json(values)


def check_export(
    arch: Architecture, spec: Quantization, *, tensor: int, pipeline: int
) -> ResolvedQuantization:
    """Refuse in milliseconds what cannot be spread over ``tensor`` x ``pipeline`` GPUs.

    Raises:
        SpecError, UnsupportedError: with what would work instead.
    """
    if arch.family not in _DECODERS:
        raise UnsupportedError(
            f"TensorRT-LLM checkpoints are written for {', '.join(_DECODERS)} models, "
            f"not for {arch.model_type}",
            where="model.source",
            hint="use the unified checkpoint with engine.runtime: pytorch",
        )
    divided = (
        ("attention heads", arch.num_heads, tensor, "tensor"),
        ("KV heads", arch.num_kv_heads, tensor, "tensor"),
        ("the MLP width", arch.intermediate_size, tensor, "tensor"),
        ("the vocabulary", arch.vocab_size, tensor, "tensor"),
        ("the layers", arch.num_layers, pipeline, "pipeline"),
    )
    for what, size, parts, field in divided:
        if size % parts:
            raise UnsupportedError(
                f"{what} ({size}) cannot be divided by {parts}",
                where=f"engine.parallelism.{field}",
                hint=f"what would work: {', '.join(map(str, _divisors(arch, field)))}",
            )
    return check(arch, spec, runtime="tensorrt", tensor=tensor, target="tensorrt_llm")


def export_here(
    checkpoint: Path,
    spec: Quantization,
    out: Path,
    scratch: Path,
    *,
    tensor: int,
    pipeline: int,
    progress: Progress,
) -> QuantizationReport:
    """The work, in this process: calibrate, judge, export, put the config right.

    Raises:
        ValidationFailed: the simulated-quantization model loses more than is accepted.
    """
    arch = read_architecture(checkpoint)
    resolved = check_export(arch, spec, tensor=tensor, pipeline=pipeline)
    watch = Stopwatch()
    with watch.stage("load"):
        model, tokenizer = load_model(checkpoint, progress=progress)
    rows: tuple[tuple[int, ...], ...] = ()
    gate = None
    if not resolved.changes_nothing:
        rows = calibration_rows(spec, tokenizer)
        gate = _calibrated(model, tokenizer, resolved, spec, rows, scratch, watch, progress)
    with watch.stage("export"):
        _write(model, arch, out, tensor, pipeline, progress)
    device = str(next(model.parameters()).device)
    return report_of(resolved, spec, rows, checkpoint, out, device=device, watch=watch, gate=gate)


def _calibrated(
    model: Any,
    tokenizer: Any,
    resolved: ResolvedQuantization,
    spec: Quantization,
    rows: Sequence[tuple[int, ...]],
    scratch: Path,
    watch: Stopwatch,
    progress: Progress,
) -> GateFigures:
    """Quantize ``model`` in simulation and judge that: only TensorRT-LLM reads what is written."""
    heldout = encode(heldout_samples(), tokenizer, HELDOUT_LENGTH)
    with watch.stage("reference"):
        reference = record_reference(model, heldout, scratch / "reference", progress=progress)
    with watch.stage("calibrate"):
        calibrate(model, resolved, spec, rows, progress=progress)
    with watch.stage("gate"):
        gate = measure(model, reference, progress=progress)
        judge(gate, resolved.limits, resolved.weights.name)
    return gate


def _write(
    model: Any, arch: Architecture, out: Path, tensor: int, pipeline: int, progress: Progress
) -> None:
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint

    progress.start("write the TensorRT-LLM checkpoint")
    # torch.float32 is no type of TensorRT-LLM's matrix products; ModelOpt would take float16.
    dtype = torch.bfloat16 if model.dtype == torch.float32 else model.dtype
    with torch.inference_mode():
        export_tensorrt_llm_checkpoint(
            model,
            _DECODERS[arch.family],
            dtype=dtype,
            export_dir=out,
            inference_tensor_parallel=tensor,
            inference_pipeline_parallel=pipeline,
        )
    complete_config(arch, out)
    progress.finish(f"{tensor * pipeline} ranks")


def complete_config(arch: Architecture, out: Path) -> None:
    """Add the rope base and scaling that ModelOpt 0.47 does not find under transformers 5.

    It looks for ``rope_theta`` in the model's config, where transformers 5 has
    ``rope_parameters``; without ``rotary_base`` TensorRT-LLM takes 10000 in silence.
    """
    path = out / "config.json"
    config = read_json(path)
    config["rotary_base"] = arch.rope_theta
    scaling = rotary_scaling(arch)
    if scaling is not None:
        config["rotary_scaling"] = scaling
    # The file is written by the last rank and names it; the field belongs to no one rank.
    config.pop("rank", None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def rotary_scaling(arch: Architecture) -> dict[str, Any] | None:
    """The rope scaling as TensorRT-LLM's ``rotary_scaling``; the type under both of its names.

    Raises:
        UnsupportedError: a method that cannot be written.
    """
    scaling = arch.rope_scaling
    if scaling is None:
        return None
    if isinstance(scaling, LinearRope):
        return {"type": "linear", "rope_type": "linear", "factor": scaling.factor}
    if isinstance(scaling, Llama3Rope):
        return {
            "type": "llama3",
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_max_position,
        }
    if isinstance(scaling, YarnRope):
        return {
            "type": "yarn",
            "rope_type": "yarn",
            "factor": scaling.factor,
            "original_max_position_embeddings": scaling.original_max_position,
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
        }
    assert isinstance(scaling, OtherRope)
    raise UnsupportedError(f"rope scaling {scaling.name!r} cannot be written for TensorRT-LLM")


def _divisors(arch: Architecture, field: str) -> list[int]:
    if field == "pipeline":
        sizes = [arch.num_layers]
    else:
        sizes = [arch.num_heads, arch.num_kv_heads, arch.intermediate_size, arch.vocab_size]
    return [n for n in range(1, 65) if all(size % n == 0 for size in sizes)]
