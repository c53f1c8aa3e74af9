"""Load, calibrate, export, check, judge: the work of one quantization, in this process.

Runs inside the child process that :mod:`toolkit.quantize.run` starts; importing it is cheap,
calling it loads torch, transformers and ModelOpt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.checkpoint.architecture import read_architecture
from toolkit.errors import EnvironmentError_, SpecError
from toolkit.progress import Progress
from toolkit.quantize.calibration import batches, encode, heldout_samples, load_samples, packed
from toolkit.quantize.check import ResolvedQuantization, check
from toolkit.quantize.export_check import (
    compare_architecture,
    compare_quantization,
    compare_tensors,
    record,
)
from toolkit.quantize.export_files import complete_config, copy_beside
from toolkit.quantize.gate import judge, measure, record_reference
from toolkit.quantize.modules import excluded
from toolkit.quantize.recipe import modelopt_config
from toolkit.quantize.report import ExportFigures, GateFigures, QuantizationReport
from toolkit.quantize.simulate import load_simulated
from toolkit.spec.models import Quantization

Batches = tuple[tuple[tuple[int, ...], ...], ...]

HELDOUT_LENGTH = 512
# The search for AWQ's scales runs every layer eleven times over each batch, and its result
# hardly depends on how many there are (sample model, KL divergence and time on a busy core: 0.290
# and 43 s with 512 tokens, 0.289 and 99 s with 2048, 0.280 and 216 s with 4096). So on a CPU it is
# cut short; the ranges before it are measured on all of the text, and a GPU searches all of it.
SEARCH_TOKENS = 2048


@dataclass
class Stopwatch:
    """Seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what runs inside."""
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)


def quantize_here(
    checkpoint: Path,
    spec: Quantization,
    out: Path,
    scratch: Path,
    *,
    progress: Progress,
    judged: bool = True,
) -> QuantizationReport:
    """Write the unified checkpoint into the existing directory ``out``, check it, judge it.

    Args:
        checkpoint: Plain checkpoint directory.
        spec: What to do.
        out: Empty directory for the result.
        scratch: Directory for the recorded model and log probabilities, about three times the
            checkpoint's size; the caller removes it.
        progress: Told of every stage.
        judged: Whether figures past their limit fail the run.

    Raises:
        ValidationFailed: export check or accuracy gate did not pass.
        SpecError, UnsupportedError, EnvironmentError_: as :func:`check` and calibration raise.
    """
    resolved = check(read_architecture(checkpoint), spec)
    _check_device(resolved)
    watch = Stopwatch()
    with watch.stage("load"):
        model, tokenizer = load_model(checkpoint, progress=progress)
    heldout = encode(heldout_samples(), tokenizer, HELDOUT_LENGTH)
    with watch.stage("reference"):
        reference = record_reference(model, heldout, scratch / "reference", progress=progress)
    rows = calibration_rows(spec, tokenizer)
    with watch.stage("calibrate"):
        calibrate(model, resolved, spec, rows, progress=progress)
    with watch.stage("export"):
        recorded = record(model, scratch / "recorded")
        export(model, checkpoint, out, progress=progress)
    device = str(next(model.parameters()).device)
    del model
    with watch.stage("check"):
        fields = compare_architecture(checkpoint, out)
        compare_quantization(resolved, out)
        figures = replace(compare_tensors(recorded, out, progress=progress), fields=fields)
    with watch.stage("gate"):
        simulated = load_simulated(out, device)
        gate = measure(simulated, reference, progress=progress)
        if judged:
            judge(gate, resolved.limits, resolved.weights.name)
    return report_of(
        resolved, spec, rows, checkpoint, out, device=device, watch=watch, gate=gate, export=figures
    )


def report_of(
    resolved: ResolvedQuantization,
    spec: Quantization,
    rows: Sequence[tuple[int, ...]],
    checkpoint: Path,
    out: Path,
    *,
    device: str,
    watch: Stopwatch,
    gate: GateFigures | None,
    export: ExportFigures | None = None,
) -> QuantizationReport:
    """The run as numbers; without ``rows`` nothing was calibrated."""
    calibration = spec.calibration
    return QuantizationReport(
        weights=resolved.weights.name,
        kv_cache=resolved.kv_cache.name,
        block_size=resolved.block_size,
        quantized_layers=len(resolved.modules),
        calibration_source=calibration.source if rows else "",
        calibration_samples=calibration.samples if rows else 0,
        calibration_tokens=sum(len(row) for row in rows),
        bytes_before=weight_bytes(checkpoint),
        bytes_after=weight_bytes(out),
        device=device,
        peak_memory_bytes=peak_memory(),
        peak_cuda_bytes=peak_cuda_memory(),
        seconds=watch.seconds,
        versions=versions(),
        limits=resolved.limits,
        gate=gate,
        export=export,
    )


def _check_device(resolved: ResolvedQuantization) -> None:
    import torch

    # ModelOpt 0.47 ``tensor_quant.py``: dynamic block quantization asserts a CUDA tensor.
    if "nvfp4" in (resolved.weights.name, resolved.kv_cache.name) and not torch.cuda.is_available():
        raise EnvironmentError_(
            "nvfp4 is calibrated on an NVIDIA GPU, and there is none here",
            where="quantization",
            hint="quantize on a machine with a GPU, or use fp8",
        )


def load_model(checkpoint: Path, *, progress: Progress) -> tuple[Any, Any]:
    """Model (on a GPU where there is one) and tokenizer, in the checkpoint's own float type."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    progress.start("load the checkpoint")
    where = {"device_map": "auto"} if torch.cuda.is_available() else {}
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    loaded = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype="auto", use_safetensors=True, **where
    )
    model = loaded.eval()
    progress.finish()
    return model, tokenizer


def calibration_rows(spec: Quantization, tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    """Token rows of the calibration text, at most ``max_length`` long, without padding.

    Raises:
        SpecError: there is no text, or none of two tokens.
    """
    samples = load_samples(spec.calibration)
    length = spec.calibration.max_length
    rows = packed(encode(samples, tokenizer, length), length)
    if not rows:
        raise SpecError(
            f"the calibration text {spec.calibration.source} holds no tokens",
            where="quantization.calibration.source",
            hint="give texts of some hundred tokens each, or use builtin",
        )
    return rows


def calibrate(
    model: Any,
    resolved: ResolvedQuantization,
    spec: Quantization,
    rows: Sequence[tuple[int, ...]],
    *,
    progress: Progress,
) -> None:
    """Insert quantizers and measure their ranges on ``rows``."""
    import modelopt.torch.quantization as mtq
    import torch

    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    config = modelopt_config(resolved, spec.exclude, linears)
    grouped = batches(rows, spec.calibration.batch_size)
    searching = bool(resolved.weights.blocks)
    mtq.quantize(model, config, forward_loop(grouped, searching, progress))
    for name in excluded(linears, spec.exclude):
        assert not linears[name].weight_quantizer.is_enabled, name


def forward_loop(grouped: Batches, searching: bool, progress: Progress) -> Callable[[Any], None]:
    """What ModelOpt calls to run the text through the model, once a pass of its algorithm."""
    passes = iter(range(1, 100))

    def run(model: Any) -> None:
        import torch

        device = next(model.parameters()).device

        # The head's product with the vocabulary is a fifth of the work, and measures nothing
        # unless the head is quantized.
        head = model.get_output_embeddings()
        with_head = head is not None and head.weight_quantizer.is_enabled
        body = model if with_head else model.base_model
        number = next(passes)
        searches = searching and number > 1
        part = _first_tokens(grouped) if searches and device.type == "cpu" else grouped
        what = "search scales" if searches else "calibrate"
        progress.start(what, sum(len(batch) * len(batch[0]) for batch in part), "tokens")
        with torch.no_grad():
            for batch in part:
                body(input_ids=torch.tensor(batch, device=device), use_cache=False)
                progress.advance(len(batch) * len(batch[0]))
        progress.finish()

    return run


def export(model: Any, checkpoint: Path, out: Path, *, progress: Progress) -> None:
    """Write weights, config.json, hf_quant_config.json and the tokenizer's files into ``out``."""
    from modelopt.torch.export import export_hf_checkpoint

    progress.start("write the quantized checkpoint")
    export_hf_checkpoint(model, export_dir=out)
    copy_beside(checkpoint, out)
    complete_config(checkpoint, out)
    progress.finish()


def weight_bytes(path: Path) -> int:
    """Bytes of the safetensors files in ``path``."""
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes (Linux counts in KiB)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_cuda_memory() -> int | None:
    """Largest GPU allocation so far, bytes over all devices; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return sum(
        int(torch.cuda.max_memory_allocated(index)) for index in range(torch.cuda.device_count())
    )


def versions() -> dict[str, str]:
    """Of the libraries that decide the result."""
    from importlib.metadata import version

    return {name: version(name) for name in ("nvidia-modelopt", "torch", "transformers")}


def _first_tokens(grouped: Batches) -> Batches:
    chosen: list[tuple[tuple[int, ...], ...]] = []
    left = SEARCH_TOKENS
    for batch in grouped:
        rows = batch[: max(1, left // len(batch[0]))]
        chosen.append(rows)
        left -= len(rows) * len(rows[0])
        if left <= 0:
            break
    return tuple(chosen)
