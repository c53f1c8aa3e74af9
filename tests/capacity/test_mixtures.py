"""Mixtures of experts: their weights as published, and their times against real runs."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from toolkit.capacity.efficiency import TENSORRT_LLM
from toolkit.capacity.memory import fit
from toolkit.capacity.mixture import mixture_bytes, mixture_of, with_experts
from toolkit.capacity.prices import read_prices
from toolkit.capacity.roofline import distinct
from toolkit.capacity.search import Goal
from toolkit.capacity.serving import Replica, with_running
from toolkit.capacity.traffic import Traffic
from toolkit.capacity.work import gpu_device, gpu_work
from toolkit.checkpoint.architecture import Architecture, architecture_of
from toolkit.errors import UnsupportedError
from toolkit.pipeline.architectures import target_architecture
from toolkit.pipeline.planning import make_plan
from toolkit.pipeline.sizing import find_deployments, speed_of
from toolkit.quantize.check import check
from toolkit.spec.gpus import find_gpu
from toolkit.spec.models import Deployment, Engine, Parallelism, Quantization
from toolkit.workspace import Workspace

HERE = Path(__file__).parent
QWEN3: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 94,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
}
SMALLER = {
    "hidden_size": 2048,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
}
MIXTRAL: dict[str, Any] = json.loads(
    (HERE.parent / "golden/models/mixtral-8x7b-instruct.json").read_text()
)


def arch_of(config: dict[str, Any]) -> Architecture:
    return with_experts(architecture_of(config, {}), config)


def weights(config: dict[str, Any], *, active: bool) -> float:
    arch = arch_of(config)
    mixture = mixture_of(arch)
    assert mixture is not None
    plain = check(arch, Quantization())
    held, expert = mixture_bytes(mixture, plain, Parallelism(), element=2, shared_tables=True)
    return (held.total + (mixture.chosen if active else mixture.experts) * expert) / 2


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [
        # Model cards: Qwen3-235B-A22B, Qwen3-30B-A3B (30.5 and 3.3), Mixtral (46.7 and 12.9).
        pytest.param(QWEN3, 235e9, 22e9, id="Qwen3-235B-A22B"),
        pytest.param(QWEN3 | SMALLER, 30.5e9, 3.3e9, id="Qwen3-30B-A3B"),
        pytest.param(MIXTRAL, 46.7e9, 12.9e9, id="Mixtral-8x7B"),
    ],
)
def test_weights_are_as_published(config: dict[str, Any], total: float, active: float) -> None:
    assert weights(config, active=False) == pytest.approx(total, rel=0.01)
    assert weights(config, active=True) == pytest.approx(active, rel=0.02)


def test_distinct_experts_by_hand() -> None:
    assert distinct(8, 2, 1) == pytest.approx(2)
    assert distinct(8, 2, 2) == pytest.approx(2 + 2 * 6 / 8)
    assert distinct(128, 8, 1000) == pytest.approx(128)
    assert distinct(0, 0, 5) == 0


def test_a_lone_token_reads_its_own_experts_and_a_batch_more() -> None:
    arch = arch_of(MIXTRAL)
    work = gpu_work(arch, check(arch, Quantization()), Parallelism())
    table = 32000 * 4096
    assert work.read_bytes(1) == pytest.approx(2 * (12.88e9 - table), rel=0.001)
    assert work.read_bytes(2) > 1.5 * work.read_bytes(1)
    assert work.read_bytes(500) == pytest.approx(2 * (46.70e9 - table), rel=0.001)
    assert work.token_ops == pytest.approx(2 * (12.88e9 - 2 * table), rel=0.001)


def test_published_runs_are_predicted() -> None:
    """Every third of 127 runs of Qwen3-235B-A22B in FP8 on 4 and 8 H100 with TensorRT-LLM, as
    ai-dynamo/aiconfigurator publishes them (systems/silicon_sample.csv at 095f58a51c4c). The
    factors are those of dense models: nothing was fitted to a mixture, and tokens that crowd on
    few experts' GPUs make real steps longer.
    """
    arch = arch_of(QWEN3)
    fp8 = check(arch, Quantization(weights="fp8"))
    errors = []
    works = {ways: gpu_work(arch, fp8, Parallelism(tensor=ways)) for ways in (4, 8)}
    for run in csv.DictReader((HERE / "tensorrt_llm_mixture_runs.csv").open()):
        work = works[int(run["tensor"])]
        replica = Replica(work, gpu_device(find_gpu("H100"), fp8), TENSORRT_LLM)
        traffic = Traffic(int(run["prompt_tokens"]), int(run["output_tokens"]))
        made = with_running(replica, traffic, int(run["users"]))
        errors.append(made.tpot_s * 1000 / float(run["tpot_ms"]) - 1)
    assert len(errors) == 43
    sizes = sorted(map(abs, errors))
    assert statistics.median(sizes) < 0.17
    assert sizes[int(0.9 * len(sizes))] < 0.32
    assert abs(statistics.median(errors)) < 0.17


def test_memory_counts_every_expert() -> None:
    arch = arch_of(MIXTRAL)
    engine = Engine.model_validate({"parallelism": {"tensor": 4}})
    plan = fit(engine, check(arch, Quantization()), arch, find_gpu("H100"), runtime="pytorch")
    held = sum(line.bytes for line in plan.fixed if line.name != "runtime")
    assert held == pytest.approx(2 * 46.7e9 / 4, rel=0.05)
    with pytest.raises(UnsupportedError):
        fit(Engine(), check(arch, Quantization()), arch, find_gpu("H100"), runtime="pytorch")


def test_a_mixture_s_config_is_enough_for_times_and_a_search(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL))
    deployment = Deployment.model_validate(
        {
            "name": "mix",
            "model": {"source": "hf://mistralai/Mixtral-8x7B-Instruct-v0.1"},
            "engine": {"runtime": "pytorch", "parallelism": {"tensor": 4}},
            "serving": {"gpus": [0, 1, 2, 3]},
        }
    )
    config = tmp_path / "config.json"
    arch = target_architecture(deployment, Workspace(tmp_path), model_config=config)
    plan = make_plan(deployment, arch, gpu="H100")
    speed = speed_of(plan, arch, Traffic(1000, 250), {})
    assert speed is not None
    one, eight, *_ = speed.estimates
    # Eight requests read nearly all experts, one of them two: a token takes longer.
    assert eight.tpot_s > 2 * one.tpot_s
    h200 = [find_gpu("H200")]
    found = find_deployments(deployment, arch, Goal(Traffic(1000, 250), 5), h200, read_prices(), {})
    assert [option.gpu.name for option in found] == ["H200"]


@pytest.mark.parametrize(
    "update",
    [
        {"model_type": "deepseek_v3"},
        {"mlp_only_layers": [0]},
        {"decoder_sparse_step": 2},
        {"num_experts_per_tok": 0},
        {"num_experts_per_tok": 200},
    ],
)
def test_other_mixtures_are_left_alone(update: dict[str, Any]) -> None:
    config = QWEN3 | update
    assert mixture_of(arch_of(config)) is None
