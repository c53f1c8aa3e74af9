"""The real sample model inside the default limits, and a broken scale outside of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import UnsupportedError, ValidationFailed
from toolkit.progress import Silent
from toolkit.quantize import QuantizationReport, quantize
from toolkit.quantize.calibration import encode, heldout_samples
from toolkit.quantize.formats import WEIGHT_FORMATS
from toolkit.quantize.gate import judge, measure, record_reference
from toolkit.quantize.simulate import load_simulated
from toolkit.quantize.trtllm_export import export_tensorrt_llm
from toolkit.quantize.unified import UnifiedCheckpoint
from toolkit.spec.models import Quantization
from toolkit.workspace import Artifact

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("weights", "kv_cache", "size"),
    [
        ("none", "fp8", 1.0),
        ("fp8", "none", 0.61),
        ("fp8", "fp8", 0.61),
        ("int8_sq", "none", 0.61),
        ("int4_awq", "none", 0.44),
        ("w4a8_awq", "none", 0.44),
    ],
)
def test_a_format_passes_its_default_limits(
    sample_checkpoint: Artifact, tmp_path: Path, weights: str, kv_cache: str, size: float
) -> None:
    spec = Quantization.model_validate(
        {
            "weights": weights,
            "kv_cache": kv_cache,
            "calibration": {"samples": 48, "max_length": 256},
        }
    )
    report = quantize(sample_checkpoint.path, spec, tmp_path / "out", progress=Silent())
    assert report.quantized_layers == (0 if weights == "none" else 210)
    assert report.block_size == (64 if "awq" in weights else None)
    assert report.bytes_after / report.bytes_before == pytest.approx(size, abs=0.01)
    assert report.gate is not None
    # The text is real text to the model, and quantizing it costs something.
    assert 20 < report.gate.perplexity_original < 60
    assert report.gate.kl_divergence > 0.001


@pytest.fixture(scope="module")
def sound(
    sample_checkpoint: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, QuantizationReport]:
    out = tmp_path_factory.mktemp("sound") / "out"
    spec = Quantization.model_validate({"weights": "fp8", "calibration": {"samples": 48}})
    return out, quantize(sample_checkpoint.path, spec, out, progress=Silent())


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("model.layers.15.mlp.down_proj.weight_scale", 2.0),
        ("model.layers.4.self_attn.o_proj.input_scale", 0.02),
    ],
)
def test_one_broken_scale_fails_the_gate(
    sample_checkpoint: Artifact,
    sound: tuple[Path, QuantizationReport],
    tmp_path: Path,
    name: str,
    factor: float,
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sample_checkpoint.path)
    original = AutoModelForCausalLM.from_pretrained(sample_checkpoint.path, dtype="auto")
    rows = encode(heldout_samples(), tokenizer, 512)
    reference = record_reference(original, rows, tmp_path / "reference", progress=Silent())
    del original
    broken = Path(shutil.copytree(sound[0], tmp_path / "broken"))
    multiply(broken, name, factor)
    limits = WEIGHT_FORMATS["fp8"].limits
    before = measure(load_simulated(sound[0]), reference, progress=Silent())
    judge(before, limits, "fp8")
    assert sound[1].gate is not None
    assert before.kl_divergence == pytest.approx(sound[1].gate.kl_divergence, rel=0.05)
    after = measure(load_simulated(broken), reference, progress=Silent())
    with pytest.raises(ValidationFailed, match="accuracy gate failed"):
        judge(after, limits, "fp8")


def multiply(path: Path, name: str, factor: float) -> None:
    """Change one stored scale in place."""
    import numpy as np

    value: Any = UnifiedCheckpoint(path).tensor(name)
    info = UnifiedCheckpoint(path).info(name)
    with (path / "model.safetensors").open("r+b") as file:
        file.seek(info.begin)
        file.write((value * np.float32(factor)).astype(np.float32).tobytes())


def test_tensorrt_llm_checkpoint_for_three_by_two_gpus(
    sample_checkpoint: Artifact, tmp_path: Path
) -> None:
    spec = Quantization.model_validate(
        {"weights": "fp8", "kv_cache": "fp8", "calibration": {"samples": 8}}
    )
    out = tmp_path / "out"
    export_tensorrt_llm(sample_checkpoint.path, spec, out, tensor=3, pipeline=2, progress=Silent())
    config = json.loads((out / "config.json").read_text())
    assert config["rotary_base"] == 100000.0
    assert config["mapping"] == {"world_size": 6, "tp_size": 3, "pp_size": 2}
    assert len(list(out.glob("rank*.safetensors"))) == 6
    with pytest.raises(UnsupportedError, match="attention heads"):
        export_tensorrt_llm(
            sample_checkpoint.path, spec, tmp_path / "no", tensor=2, progress=Silent()
        )
