"""Builds with nothing replaced but ``trtllm-build`` itself: export, engine, repository, proof."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_builder import TESTS, install
from tiny_checkpoints import write_checkpoint

from toolkit.pipeline import BuildResult, build
from toolkit.progress import Silent
from toolkit.repository.check import check_static
from toolkit.repository.configs import read_configs
from toolkit.spec.models import Deployment
from toolkit.workspace import Artifact, Workspace

sys.path.insert(0, str(TESTS / "quantize"))

FP8 = {
    "weights": "fp8",
    "kv_cache": "fp8",
    "calibration": {"samples": 2, "max_length": 32},
    # Random weights lose more than trained ones.
    "accept": {"perplexity_increase": 10, "kl_divergence": 10, "top1_agreement": 0.01},
}
LIMITS = {"max_batch_size": 4, "max_input_len": 64, "max_seq_len": 128, "max_num_tokens": 256}


def deployment(model: Path, **sections: Any) -> Deployment:
    engine = {"limits": LIMITS, **sections.pop("engine")}
    given = {"name": "chat", "model": {"source": str(model)}, "engine": engine, **sections}
    return Deployment.model_validate(given)


def built(made: Deployment, folder: Path) -> BuildResult:
    result = build(made, Workspace(folder / "ws"), progress=Silent())
    assert result.complete
    assert check_static(result.repository) == []
    return result


def artifact(result: BuildResult, name: str) -> Artifact:
    found = result.artifact(name)
    assert found is not None
    return found


def model(folder: Path, **changes: Any) -> Path:
    from small_model import write_small_model

    return write_small_model(folder, **changes)


@pytest.mark.slow
def test_engines_of_a_target_and_its_draft_over_two_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = install(tmp_path, monkeypatch)
    made = deployment(
        model(tmp_path / "model"),
        quantization=FP8,
        engine={
            "runtime": "tensorrt",
            "parallelism": {"tensor": 2},
            "tensorrt": {"reduce_fusion": True, "user_buffer": True},
            "speculation": {
                "method": "draft_model",
                "draft": {"source": str(model(tmp_path / "draft"))},
                "max_draft_len": 3,
            },
        },
        serving={"gpu": "H100", "gpus": [0, 1]},
    )
    result = built(made, tmp_path)
    target, draft = builder.calls
    for call, stage in ((target, "exported"), (draft, "exported draft")):
        exported = artifact(result, stage).path
        assert call[call.index("--checkpoint_dir") + 1] == str(exported)
        ranks = [f"rank{rank}.safetensors" for rank in (0, 1)]
        assert sorted(file.name for file in exported.glob("rank*.safetensors")) == ranks
    repository = result.repository
    config = json.loads((repository / "tensorrt_llm/1/engine/config.json").read_text())
    quantization = config["pretrained_config"]["quantization"]
    assert (quantization["quant_algo"], quantization["kv_cache_quant_algo"]) == ("FP8", "FP8")
    configs, _ = read_configs(repository)
    for name in ("tensorrt_llm", "tensorrt_llm_draft"):
        folder = configs[name].parameters["gpt_model_path"].string_value
        assert Path(folder) == repository / name / "1/engine"
        assert sorted(file.name for file in Path(folder).glob("*.engine")) == [
            "rank0.engine",
            "rank1.engine",
        ]
    bounds = {
        configs[name].parameters["max_tokens_in_paged_kv_cache"].string_value
        for name in ("tensorrt_llm", "tensorrt_llm_draft")
    }
    assert len(bounds) == 1
    assert int(bounds.pop()) > LIMITS["max_seq_len"]
    engine = json.loads((artifact(result, "engine").path / "engine.json").read_text())
    assert engine == {"runtime": "tensorrt", "release": "1.2.1", "tensorrt_llm": "1.2.1"}


def test_the_llm_api_s_folder_of_a_plain_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "adapter_model.safetensors").write_text("sql")
    (tmp_path / "sql" / "adapter_config.json").write_text('{"r": 8, "target_modules": ["q_proj"]}')
    made = deployment(
        write_checkpoint(tmp_path / "model"),
        engine={"runtime": "pytorch", "lora": {"adapters": {"sql": str(tmp_path / "sql")}}},
        serving={"gpu": "H100"},
    )
    result = built(made, tmp_path)
    version = result.repository / "chat/1"
    told = yaml.safe_load((version / "model.yaml").read_text())
    assert told["model"] == "./model"
    weights = (version / "model/model.safetensors").read_bytes()
    assert weights == (tmp_path / "model/model.safetensors").read_bytes()
    (adapter,) = told["lora_config"]["lora_dir"]
    assert (version / adapter / "adapter_model.safetensors").read_text() == "sql"


@pytest.mark.slow
def test_the_llm_api_s_folder(tmp_path: Path) -> None:
    made = deployment(
        model(tmp_path / "model"),
        quantization=FP8,
        engine={
            "runtime": "pytorch",
            "speculation": {
                "method": "draft_model",
                "draft": {"source": str(model(tmp_path / "draft"))},
                "max_draft_len": 3,
            },
        },
        serving={"gpu": "H100"},
    )
    result = built(made, tmp_path)
    version = result.repository / "chat/1"
    told = yaml.safe_load((version / "model.yaml").read_text())
    quantized = artifact(result, "quantized").path
    for path, source in (
        (told["model"], quantized),
        (told["speculative_config"]["speculative_model"], None),
    ):
        assert (version / path / "config.json").is_file()
        assert list((version / path).glob("*.safetensors"))
        if source is not None:
            named = (version / path / "hf_quant_config.json").read_bytes()
            assert named == (source / "hf_quant_config.json").read_bytes()
    assert told["kv_cache_config"]["dtype"] == "fp8"
    engine = json.loads((artifact(result, "engine").path / "engine.json").read_text())
    assert engine == {"runtime": "pytorch", "release": "1.2.1", "tensorrt_llm": None}
