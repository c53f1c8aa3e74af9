"""Every format, really calibrated, exported, read back and judged, on a model of four layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.checkpoint.architecture import read_architecture
from toolkit.errors import EnvironmentError_, SpecError, UnsupportedError, ValidationFailed
from toolkit.progress import Silent
from toolkit.quantize import QuantizationReport, quantize
from toolkit.quantize.check import check
from toolkit.quantize.export_check import compare_architecture, compare_quantization
from toolkit.quantize.modelopt_run import load_model, quantize_here
from toolkit.quantize.unified import UnifiedCheckpoint
from toolkit.spec.models import Quantization

# The model is random: its figures say nothing about the formats, so the limits are wide here.
WIDE = {"perplexity_increase": 2.0, "kl_divergence": 2.0, "top1_agreement": 0.1}
FEW = {"samples": 12, "max_length": 96, "batch_size": 4}


def spec(weights: str, kv_cache: str = "none", **more: Any) -> Quantization:
    return Quantization.model_validate(
        {"weights": weights, "kv_cache": kv_cache, "accept": WIDE, "calibration": FEW, **more}
    )


def run_here(checkpoint: Path, wanted: Quantization, tmp_path: Path) -> QuantizationReport:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    return quantize_here(checkpoint, wanted, out, scratch, progress=Silent())


@pytest.mark.parametrize(
    ("weights", "kv_cache", "kind", "bits"),
    [
        ("fp8", "none", "fp8", 8),
        ("fp8", "fp8", "fp8", 8),
        ("int8_sq", "none", "int8", 8),
        ("int4_awq", "none", "int4", 4),
        ("w4a8_awq", "fp8", "int4", 4),
        ("none", "fp8", "none", 16),
    ],
)
def test_a_format_goes_all_the_way(
    small_checkpoint: Path, tmp_path: Path, weights: str, kv_cache: str, kind: str, bits: int
) -> None:
    report = run_here(small_checkpoint, spec(weights, kv_cache), tmp_path)
    checkpoint = UnifiedCheckpoint(tmp_path / "out")
    linear = checkpoint.linear("model.layers.1.mlp.down_proj")
    assert linear.weight_format == kind
    assert (linear.out_features, linear.in_features) == (96, 192)
    assert checkpoint.info("model.layers.1.mlp.down_proj.weight").nbytes * 8 == 96 * 192 * bits
    assert (checkpoint.kv_scales(1) is not None) == (kv_cache == "fp8")
    assert report.gate is not None
    assert report.export is not None
    assert report.export.linears == report.quantized_layers == (28 if bits < 16 else 0)
    assert report.export.tensors == 4 * 9 + 2
    # Something was quantized, and what was quantized still resembles the model.
    assert 0 < report.gate.kl_divergence < 1
    if bits < 16:
        original = UnifiedCheckpoint(small_checkpoint)
        wanted = original.linear(linear.name).dequantize()
        error = np.linalg.norm(linear.effective_weight() - wanted) / np.linalg.norm(wanted)
        assert 0 < error < (0.06 if bits == 8 else 0.25)
    assert (tmp_path / "out" / "tokenizer.json").exists()
    assert (tmp_path / "out" / "chat_template.jinja").exists()


def test_the_public_call_leaves_the_result_and_its_report(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    steps = Steps()
    report = quantize(small_checkpoint, spec("fp8"), tmp_path / "out", progress=steps)
    notes = json.loads((tmp_path / "out" / "notes.json").read_text())
    assert QuantizationReport.from_json(notes) == report
    assert notes["gate"]["perplexity_increase"] == pytest.approx(
        notes["gate"]["perplexity_quantized"] / notes["gate"]["perplexity_original"] - 1
    )
    assert report.peak_memory_bytes > 10**8
    assert report.bytes_after < report.bytes_before
    assert {"calibrate", "export", "check", "gate"} <= set(report.seconds)
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {
        "config.json", "hf_quant_config.json", "model.safetensors", "tokenizer.json"}  # fmt: skip
    assert not list((tmp_path / "out").glob(".*"))
    assert any(what == "calibrate" and total for what, total in steps.started)
    assert steps.advanced["calibrate"] == dict(steps.started)["calibrate"]


def test_a_failing_gate_leaves_nothing(small_checkpoint: Path, tmp_path: Path) -> None:
    strict = spec("int4_awq").model_copy(
        update={"accept": Quantization.model_validate({"accept": {"kl_divergence": 1e-6}}).accept}
    )
    with pytest.raises(ValidationFailed, match="KL divergence") as caught:
        quantize(small_checkpoint, strict, tmp_path / "out", progress=Silent())
    assert "fp8" in str(caught.value.hint)
    assert list((tmp_path / "out").iterdir()) == []


def test_text_of_no_tokens_is_refused(small_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("")
    (tmp_path / "own.jsonl").write_text('{"text": ""}\n')
    for name in ("own.txt", "own.jsonl"):
        wanted = spec("fp8", calibration={"source": str(tmp_path / name)})
        with pytest.raises(SpecError, match=r"empty|no tokens"):
            quantize(small_checkpoint, wanted, tmp_path / "out", progress=Silent())
    assert list((tmp_path / "out").iterdir()) == []


def test_pickles_are_not_loaded(small_checkpoint: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    pickled = tmp_path / "pickled"
    shutil.copytree(small_checkpoint, pickled)
    weights = pickled / "model.safetensors"
    torch.save(load_file(weights), pickled / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(SpecError, match=r"pickle|safetensors"):
        quantize(pickled, spec("fp8"), tmp_path / "out", progress=Silent())
    with pytest.raises(OSError, match="safetensors"):
        load_model(pickled, progress=Silent())


def test_a_draft_is_measured_and_not_judged(small_checkpoint: Path, tmp_path: Path) -> None:
    strict = Quantization.model_validate(
        {"weights": "fp8", "calibration": FEW, "accept": {"kl_divergence": 1e-9}}
    )
    report = quantize(
        small_checkpoint, strict, tmp_path / "out", progress=Silent(), speculation_draft=True
    )
    assert report.gate is not None
    assert report.gate.kl_divergence > 1e-9


def test_nothing_to_do_is_a_copy(small_checkpoint: Path, tmp_path: Path) -> None:
    report = quantize(small_checkpoint, Quantization(), tmp_path / "out", progress=Silent())
    assert report.bytes_after == report.bytes_before
    for file in small_checkpoint.iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_excluded_layers_stay_as_they_were(small_checkpoint: Path, tmp_path: Path) -> None:
    wanted = spec("fp8", exclude=("lm_head", "layers.0.*", "down_proj"))
    report = run_here(small_checkpoint, wanted, tmp_path)
    assert report.quantized_layers == 3 * 6
    checkpoint, original = UnifiedCheckpoint(tmp_path / "out"), UnifiedCheckpoint(small_checkpoint)
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.3.mlp.down_proj"):
        kept = checkpoint.tensor(f"{name}.weight")
        assert np.array_equal(
            kept.view(np.uint16), original.tensor(f"{name}.weight").view(np.uint16)
        )


def test_nvfp4_asks_for_a_gpu(small_checkpoint: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EnvironmentError_, match="GPU"):
        quantize(small_checkpoint, spec("nvfp4"), tmp_path / "out", progress=Silent())


def test_a_quantized_checkpoint_is_refused(small_checkpoint: Path, tmp_path: Path) -> None:
    run_here(small_checkpoint, spec("fp8"), tmp_path)
    with pytest.raises(UnsupportedError, match="quantized already"):
        quantize(tmp_path / "out", spec("fp8"), tmp_path / "again", progress=Silent())


@pytest.fixture(scope="module")
def exported(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported")
    run_here(small_checkpoint, spec("fp8", "fp8"), path)
    return path / "out"


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("rope_theta", None, "rope_theta as transformers 4 reads it: 10000.0"),
        ("rms_norm_eps", 1e-5, "rms_norm_eps"),
        ("num_key_value_heads", 4, "num_kv_heads"),
        ("tie_word_embeddings", False, "tied_embeddings"),
        ("torch_dtype", "float16", "dtype as transformers 4 reads it"),
        ("vocab_size", 400, "vocab_size"),
    ],
)
def test_a_changed_field_of_the_config_is_found(
    small_checkpoint: Path, exported: Path, tmp_path: Path, field: str, value: Any, text: str
) -> None:
    broken = Path(shutil.copytree(exported, tmp_path / "broken"))
    assert compare_architecture(small_checkpoint, broken) > 30
    config = json.loads((broken / "config.json").read_text())
    config[field] = value
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValidationFailed, match=text):
        compare_architecture(small_checkpoint, broken)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quant_algo", "INT8"),
        ("kv_cache_quant_algo", None),
        ("exclude_modules", ["lm_head", "*down_proj"]),
        ("group_size", 64),
    ],
)
def test_a_changed_declaration_is_found(
    small_checkpoint: Path, exported: Path, tmp_path: Path, field: str, value: Any
) -> None:
    broken = Path(shutil.copytree(exported, tmp_path / "broken"))
    resolved = check(read_architecture(small_checkpoint), spec("fp8", "fp8"))
    compare_quantization(resolved, broken)
    config = json.loads((broken / "hf_quant_config.json").read_text())
    config["quantization"][field] = value
    (broken / "hf_quant_config.json").write_text(json.dumps(config))
    with pytest.raises(ValidationFailed):
        compare_quantization(resolved, broken)


class Steps(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.started: list[tuple[str, float | None]] = []
        self.advanced: dict[str, float] = {}

    def start(self, what: str, total: float | None = None, unit: str = "") -> None:
        self.started.append((what, total))

    def advance(self, amount: float = 1) -> None:
        what = self.started[-1][0]
        self.advanced[what] = self.advanced.get(what, 0) + amount
