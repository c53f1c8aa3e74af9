"""A checkpoint that is damaged after the calibration: the export check and the gate must see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.errors import ValidationFailed
from toolkit.progress import Silent
from toolkit.quantize import modelopt_run
from toolkit.quantize.formats import AcceptLimits
from toolkit.quantize.gate import judge
from toolkit.quantize.modelopt_run import quantize_here
from toolkit.quantize.report import ExportFigures, GateFigures
from toolkit.spec.models import Quantization

UNCHECKED = ExportFigures(linears=0, tensors=0, fields=0, largest_error=0, differing=0)
Change = Callable[[dict[str, Any]], None]


def damaged_by(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every export be changed right after it was written."""
    from safetensors.torch import load_file, save_file

    export = modelopt_run.export

    def export_and_damage(model: Any, checkpoint: Path, out: Path, **more: Any) -> None:
        export(model, checkpoint, out, **more)
        tensors = load_file(out / "model.safetensors")
        change(tensors)
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(modelopt_run, "export", export_and_damage)


def run(checkpoint: Path, tmp_path: Path, weights: str, kv_cache: str = "none") -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "scratch").mkdir()
    spec = Quantization.model_validate(
        {
            "weights": weights,
            "kv_cache": kv_cache,
            "calibration": {"samples": 12, "max_length": 96},
            "accept": {"perplexity_increase": 0.5, "kl_divergence": 0.5, "top1_agreement": 0.3},
        }
    )
    quantize_here(checkpoint, spec, tmp_path / "out", tmp_path / "scratch", progress=Silent())


def scaled(name: str, factor: float) -> Change:
    def change(tensors: dict[str, Any]) -> None:
        tensors[name] = (tensors[name].float() * factor).to(tensors[name].dtype)

    return change


def swapped_nibbles(tensors: dict[str, Any]) -> None:
    name = "model.layers.2.mlp.up_proj.weight"
    tensors[name] = (tensors[name] << 4) | (tensors[name] >> 4)


def removed(name: str) -> Change:
    def change(tensors: dict[str, Any]) -> None:
        del tensors[name]

    return change


@pytest.mark.parametrize(
    ("weights", "change", "text"),
    [
        ("fp8", scaled("model.layers.2.mlp.up_proj.weight_scale", 1.5), "up_proj.weight is off"),
        ("fp8", scaled("model.layers.0.mlp.up_proj.input_scale", 2), "up_proj.input_scale"),
        ("fp8", scaled("model.norm.weight", 1.01), "model.norm.weight differs"),
        ("int4_awq", scaled("model.layers.1.mlp.down_proj.weight_scale", 2), "down_proj.weight"),
        ("int4_awq", swapped_nibbles, "up_proj.weight is off"),
        ("int4_awq", scaled("model.layers.1.mlp.down_proj.pre_quant_scale", 2), "pre_quant_scale"),
        ("int4_awq", removed("model.layers.1.mlp.down_proj.pre_quant_scale"), "pre_quant_scale"),
        ("int8_sq", scaled("model.layers.3.self_attn.o_proj.weight_scale", 1.1), "o_proj.weight"),
    ],
)
def test_the_export_check_finds_it(
    small_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: str,
    change: Change,
    text: str,
) -> None:
    damaged_by(change, monkeypatch)
    with pytest.raises(ValidationFailed, match=text):
        run(small_checkpoint, tmp_path, weights)


@pytest.mark.parametrize(
    ("weights", "kv_cache", "change"),
    [
        ("fp8", "none", scaled("model.layers.2.self_attn.v_proj.weight_scale", 30)),
        ("fp8", "fp8", scaled("model.layers.1.self_attn.v_proj.v_scale", 0.001)),
        ("fp8", "none", scaled("model.layers.1.mlp.down_proj.input_scale", 0.0005)),
        ("int4_awq", "none", scaled("model.layers.1.mlp.down_proj.pre_quant_scale", 20)),
    ],
)
def test_the_gate_alone_finds_it_in_the_written_files(
    small_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights: str,
    kv_cache: str,
    change: Change,
) -> None:
    monkeypatch.setattr(modelopt_run, "compare_tensors", lambda *_, **__: UNCHECKED)
    damaged_by(change, monkeypatch)
    with pytest.raises(ValidationFailed, match="accuracy gate failed"):
        run(small_checkpoint, tmp_path, weights, kv_cache)


LIMITS = AcceptLimits(perplexity_increase=0.05, kl_divergence=0.1, top1_agreement=0.9)


def figures(**changes: float) -> GateFigures:
    values = {
        "tokens": 100,
        "perplexity_original": 10.0,
        "perplexity_quantized": 10.2,
        "kl_divergence": 0.05,
        "top1_agreement": 0.95,
    }
    return GateFigures(**{**values, **changes})  # type: ignore[arg-type]


def test_figures_inside_the_limits_pass() -> None:
    judge(figures(), LIMITS, "fp8")
    judge(figures(perplexity_quantized=10.49, kl_divergence=0.1, top1_agreement=0.9), LIMITS, "fp8")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"perplexity_quantized": 10.6}, ["perplexity_increase"]),
        ({"kl_divergence": 0.11}, ["kl_divergence"]),
        ({"top1_agreement": 0.89}, ["top1_agreement"]),
        ({"perplexity_quantized": np.nan}, ["perplexity_increase"]),
        ({"perplexity_quantized": np.inf, "kl_divergence": np.nan, "top1_agreement": np.nan},
         ["perplexity_increase", "kl_divergence", "top1_agreement"]),
    ],
)  # fmt: skip
def test_each_figure_past_its_limit_is_named(changes: dict[str, float], names: list[str]) -> None:
    with pytest.raises(ValidationFailed) as caught:
        judge(figures(**changes), LIMITS, "fp8")
    lines = [caught.value.message, *caught.value.details]
    assert len(lines) == len(names)
    assert all(name in line for name, line in zip(names, lines, strict=True))
    assert caught.value.hint
