"""Is what was written what was simulated? Tensor by tensor and field by field.

Before the export the simulated-quantization model is recorded: the weights as its quantizers
round them, the steps of its inputs, and everything that stays unquantized. Afterwards the files
are read by :mod:`toolkit.quantize.unified` and compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint.architecture import Architecture, architecture_of, read_json
from toolkit.errors import ValidationFailed
from toolkit.progress import Progress
from toolkit.quantize.check import ResolvedQuantization
from toolkit.quantize.modules import excluded
from toolkit.quantize.report import ExportFigures
from toolkit.quantize.unified import QuantizedLinear, UnifiedCheckpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# The exporter divides by the scale in the weight's own type and the simulation in float32, so a
# weight near the middle between two grid points may fall on either (2.9 % of the sample model's
# did in fp8). More than one step, or more than a few such weights, is a defect.
LARGEST_ERROR = 1.01
LARGEST_SHARE = 0.06
# Steps are stored in float32 but computed from bfloat16 ranges.
_SCALE_TOLERANCE = 1e-2
_UNCOMPARED = ("quantization",)


@dataclass(frozen=True)
class Recorded:
    """The simulated model; arrays are in ``directory``, one file a tensor.

    Attributes:
        directory: ``<tensor name>.npy`` in float32 for each quantized weight and each tensor that
            stays unquantized. A W4A8 weight is kept after the first of its two roundings.
        linears: Quantized layers.
        plain: Tensors that stay unquantized.
        input_scales: Steps of the inputs by layer.
        pre_quant_scales: Layers whose input is scaled, with the factors.
        second_scales: Steps of the second rounding by layer.
    """

    directory: Path
    linears: tuple[str, ...]
    plain: tuple[str, ...]
    input_scales: dict[str, float]
    pre_quant_scales: dict[str, Floats]
    second_scales: dict[str, float]


def record(model: Any, directory: Path) -> Recorded:
    """Keep what the exported checkpoint of the quantized ``model`` must contain.

    Layers that share an input are brought to common scales first, by the function with which
    ModelOpt's exporter begins (it finds nothing left to do then).
    """
    import torch
    from modelopt.torch.export.unified_export_hf import requantize_resmooth_fused_llm_layers

    with torch.inference_mode(False), torch.no_grad():
        requantize_resmooth_fused_llm_layers(model)
        directory.mkdir(parents=True, exist_ok=True)
        linears: list[str] = []
        inputs: dict[str, float] = {}
        smoothing: dict[str, Floats] = {}
        second: dict[str, float] = {}
        for name, module in model.named_modules():
            if not _is_quantized(module):
                continue
            linears.append(name)
            rounding = _roundings(module.weight_quantizer)
            _save(directory, f"{name}.weight", rounding[0](module.weight))
            if len(rounding) > 1:
                second[name] = float(rounding[1].amax.float()) / _steps(rounding[1])
            quantizer = module.input_quantizer
            if getattr(quantizer, "_pre_quant_scale", None) is not None:
                smoothing[name] = quantizer._pre_quant_scale.reshape(-1).float().cpu().numpy()
            if quantizer.is_enabled and quantizer.amax is not None:
                inputs[name] = float(quantizer.amax.float()) / _steps(quantizer)
        plain = tuple(_save_plain(model, directory, {f"{name}.weight" for name in linears}))
    return Recorded(directory, tuple(linears), plain, inputs, smoothing, second)


def compare_tensors(recorded: Recorded, path: Path, *, progress: Progress) -> ExportFigures:
    """Every tensor of the checkpoint ``path`` against the recorded model.

    Raises:
        ValidationFailed: naming the first tensor that differs, and by how much.
    """
    checkpoint = UnifiedCheckpoint(path)
    progress.start("check the export", len(recorded.linears) + len(recorded.plain), "tensors")
    largest, differing, count = 0.0, 0, 0
    for name in recorded.linears:
        linear = checkpoint.linear(name)
        error, off = _compare_linear(recorded, linear)
        largest, differing, count = max(largest, error), differing + off, count + linear.values.size
        progress.advance()
    for name in recorded.plain:
        _compare_plain(recorded, checkpoint, name)
        progress.advance()
    share = differing / count if count else 0.0
    if share > LARGEST_SHARE:
        raise _differs(f"{share:.1%} of all weights", "lie on another grid point", path)
    progress.finish(f"largest error {largest:.2f} steps, {share:.2%} on a neighbouring step")
    return ExportFigures(
        linears=len(recorded.linears),
        tensors=len(recorded.linears) + len(recorded.plain),
        fields=0,
        largest_error=largest,
        differing=share,
    )


def compare_architecture(source: Path, path: Path) -> int:
    """Every architecture field of the export's config.json against the source's; their number.

    Both layouts of the rope parameters are compared: readers built on transformers 4 take
    ``rope_theta`` and ``rope_scaling`` from the top level and fall back to 10000 in silence.

    Raises:
        ValidationFailed: naming every field that differs.
    """
    expected = _architecture(source, old_readers=False)
    problems, count = [], 0
    for old_readers in (False, True):
        found = _architecture(path, old_readers)
        for field in fields(Architecture):
            if field.name in _UNCOMPARED:
                continue
            count += 1
            wanted, got = getattr(expected, field.name), getattr(found, field.name)
            if wanted != got:
                reader = " as transformers 4 reads it" if old_readers else ""
                problems.append(f"{field.name}{reader}: {got!r}, the source has {wanted!r}")
    if problems:
        raise ValidationFailed(
            f"the exported config.json differs from the source: {problems[0]}",
            where=str(path / "config.json"),
            details=problems[1:],
        )
    return count


def compare_quantization(resolved: ResolvedQuantization, path: Path) -> None:
    """``hf_quant_config.json`` and the stored tensors against what was asked for.

    Raises:
        ValidationFailed: a declared format, the quantized or the excluded layers differ.
    """
    checkpoint = UnifiedCheckpoint(path)
    declared = checkpoint.quantization
    expected = (
        ("quant_algo", declared.quant_algo, resolved.weights.quant_algo),
        ("kv_cache_quant_algo", declared.kv_cache_quant_algo, resolved.kv_cache.quant_algo),
        ("group_size", declared.group_size, resolved.block_size),
    )
    for field, got, wanted in expected:
        if got != wanted:
            raise _differs(f"{field} {got!r}", f"is declared instead of {wanted!r}", path)
    quantized = {
        name for name in checkpoint.linear_names() if f"{name}.weight_scale" in checkpoint.names
    }
    if quantized != set(resolved.modules):
        odd = sorted(quantized ^ set(resolved.modules))
        raise _differs(", ".join(odd[:5]), "should be quantized and is not, or the reverse", path)
    linears = set(checkpoint.linear_names())
    if resolved.modules and (linears - quantized) != excluded(linears, declared.exclude_modules):
        raise _differs("exclude_modules", "does not name the unquantized layers", path)
    layers = int(checkpoint.config["num_hidden_layers"])
    with_scales = sum(checkpoint.kv_scales(layer) is not None for layer in range(layers))
    if with_scales != (0 if resolved.kv_cache.name in ("none", "nvfp4") else layers):
        raise _differs(f"{with_scales} layers of {layers}", "carry KV-cache scales", path)


def _architecture(path: Path, old_readers: bool) -> Architecture:
    config = read_json(path / "config.json")
    generation = path / "generation_config.json"
    if old_readers:
        config = {key: value for key, value in config.items() if key != "rope_parameters"}
        config["dtype"] = config.get("torch_dtype")
    return architecture_of(config, read_json(generation) if generation.exists() else {})


def _is_quantized(module: Any) -> bool:
    quantizer = getattr(module, "weight_quantizer", None)
    if quantizer is None or not hasattr(module, "weight"):
        return False
    return any(part.is_enabled for part in _roundings(quantizer))


def _roundings(quantizer: Any) -> list[Any]:
    # W4A8 rounds twice, with a sequence of quantizers.
    return list(quantizer) if hasattr(quantizer, "__getitem__") else [quantizer]


def _steps(quantizer: Any) -> float:
    # An nvfp4 input has two levels of scales; the stored one is that of the tensor.
    if quantizer.num_bits == (2, 1):
        return 6.0 * 448.0
    return float(quantizer.maxbound)


def _save_plain(model: Any, directory: Path, quantized: set[str]) -> Iterator[str]:
    for name, value in model.named_parameters():
        if name not in quantized:
            _save(directory, name, value)
            yield name


def _save(directory: Path, name: str, value: Any) -> None:
    import numpy as np

    np.save(directory / f"{name}.npy", value.detach().float().cpu().numpy())


def _compare_linear(recorded: Recorded, linear: QuantizedLinear) -> tuple[float, int]:
    import numpy as np

    expected = np.load(recorded.directory / f"{linear.name}.weight.npy", mmap_mode="r")
    where = recorded.directory
    if linear.scale is None:
        raise _differs(linear.name, "was written without quantization", where)
    if expected.shape != linear.values.shape:
        raise _differs(linear.name, f"has shape {linear.values.shape}, not {expected.shape}", where)
    # The simulation rounds its result to bfloat16: 2^-9 of the value is no error of the export.
    once = replace(linear, second_scale=None).dequantize()
    unrounded = np.abs(once - expected) - np.abs(expected) * np.float32(2.0**-8)
    error = np.maximum(unrounded, 0) / _grid(linear, expected)
    largest = float(error.max()) if error.size else 0.0
    if not largest <= LARGEST_ERROR:
        raise _differs(f"{linear.name}.weight", f"is off by {largest:.2f} steps", where)
    _compare_scale(linear.name, "weight_scale_2", linear.second_scale,
                   recorded.second_scales.get(linear.name), where)  # fmt: skip
    _compare_scale(linear.name, "input_scale", linear.input_scale,
                   recorded.input_scales.get(linear.name), where)  # fmt: skip
    wanted = recorded.pre_quant_scales.get(linear.name)
    got = linear.pre_quant_scale
    same = got is None if wanted is None else got is not None and np.array_equal(wanted, got)
    if not same:
        raise _differs(f"{linear.name}.pre_quant_scale", "differs", where)
    return largest, int((error > 0.5).sum())


def _grid(linear: QuantizedLinear, expected: Any) -> Floats:
    """Distance between neighbouring representable values at each weight, float32 [out, in]."""
    import numpy as np

    if linear.scale is None:
        return np.ones(expected.shape, np.float32)
    scale = linear.scale
    if linear.block is not None:
        scale = np.repeat(scale, linear.block, axis=1)
    elif scale.ndim == 1:
        scale = scale[:, None]
    step: Floats = np.broadcast_to(scale, expected.shape).astype(np.float32)
    if linear.weight_format == "fp8":
        # e4m3: three bits of mantissa, smallest step 2^-9.
        magnitude = np.maximum(np.abs(expected) / np.maximum(step, 1e-30), 2.0**-6)
        step = step * np.exp2(np.floor(np.log2(magnitude * 1.001)) - 3).astype(np.float32)
    return step


def _compare_scale(
    name: str, field: str, got: float | None, wanted: float | None, where: Path
) -> None:
    if got is None and wanted is None:
        return
    if got is None or wanted is None or not abs(got - wanted) <= _SCALE_TOLERANCE * abs(wanted):
        raise _differs(f"{name}.{field}", f"is {got}, the simulated model has {wanted}", where)


def _compare_plain(recorded: Recorded, checkpoint: UnifiedCheckpoint, name: str) -> None:
    import numpy as np

    expected = np.load(recorded.directory / f"{name}.npy", mmap_mode="r")
    got = checkpoint.tensor(name).astype(np.float32)
    if got.shape != expected.shape or not np.array_equal(got, expected):
        raise _differs(name, "differs from the model's", checkpoint.path)


def _differs(what: str, how: str, where: Path) -> ValidationFailed:
    return ValidationFailed(
        f"the exported checkpoint is not the model that was calibrated: {what} {how}",
        where=str(where),
        hint="this is a defect of the export, not of the settings; please report it with "
        "the versions of nvidia-modelopt and transformers",
    )
