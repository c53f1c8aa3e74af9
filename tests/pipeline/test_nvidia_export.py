"""What ModelOpt really exports goes into the build commands as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fake_builder import TESTS, install

from toolkit.pipeline import build
from toolkit.progress import Silent
from toolkit.spec.models import Deployment
from toolkit.workspace import Workspace

sys.path.insert(0, str(TESTS / "quantize"))
pytestmark = pytest.mark.slow


def test_a_real_export_over_two_gpus_becomes_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from small_model import write_small_model

    def no_rendering(*places: object, **_: object) -> None:
        out = places[-1]
        assert isinstance(out, Path)
        out.mkdir()

    monkeypatch.setattr("toolkit.repository.render.render", no_rendering)
    monkeypatch.setattr("toolkit.repository.check.check_static", lambda _: [])
    builder = install(tmp_path, monkeypatch)
    limits = {"max_batch_size": 4, "max_input_len": 64, "max_seq_len": 128, "max_num_tokens": 256}
    made = Deployment.model_validate(
        {
            "name": "chat",
            "model": {"source": str(write_small_model(tmp_path / "model"))},
            "quantization": {
                "weights": "fp8",
                "kv_cache": "fp8",
                "calibration": {"samples": 2, "max_length": 32},
            },
            "engine": {
                "runtime": "tensorrt",
                "limits": limits,
                "parallelism": {"tensor": 2},
                "tensorrt": {"reduce_fusion": True, "user_buffer": True},
            },
            "serving": {"gpu": "H100", "gpus": [0, 1]},
        }
    )
    result = build(made, Workspace(tmp_path / "ws"), progress=Silent())
    engine = result.artifact("engine")
    assert engine is not None
    config = json.loads((engine.path / "target" / "config.json").read_text())
    quantization = config["pretrained_config"]["quantization"]
    assert quantization == {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    (call,) = builder.calls
    exported = result.artifact("exported")
    assert exported is not None
    assert call[call.index("--checkpoint_dir") + 1] == str(exported.path)
    assert sorted(file.name for file in exported.path.glob("rank*.safetensors")) == [
        "rank0.safetensors",
        "rank1.safetensors",
    ]
