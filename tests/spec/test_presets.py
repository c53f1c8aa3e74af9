"""Preset files: they load as meant, fit a page, and suit the GPU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from toolkit.errors import SpecError
from toolkit.spec.document import parse, plain
from toolkit.spec.gpus import GPUS, Gpu, find_gpu
from toolkit.spec.loading import load
from toolkit.spec.models import NGram
from toolkit.spec.presets import Goal, Preset, choose, name_from, render
from toolkit.spec.schema import deployment_schema

SOURCE = "hf://meta-llama/Llama-3.1-8B-Instruct@main"
TARGETS = [None, *GPUS]


@pytest.fixture(
    params=[(gpu, goal) for gpu in TARGETS for goal in ("latency", "throughput")],
    ids=lambda case: f"{case[0].name if case[0] else 'cpu'}-{case[1]}",
)
def preset(request: pytest.FixtureRequest) -> Preset:
    gpu, goal = request.param
    return choose(SOURCE, gpu=gpu, goal=goal)


def test_the_file_loads_as_it_was_meant(preset: Preset, tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_text(render(preset, schema="schema.json"))
    assert load(path, environ={}).deployment == preset.deployment


def test_the_file_is_a_commented_page(preset: Preset) -> None:
    lines = render(preset).splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 100
    assert all(line == line.rstrip() for line in lines)
    for field, reason in preset.reasons.items():
        if field in preset.values:
            assert reason.split()[0] in "\n".join(lines)


def test_the_file_obeys_the_schema(preset: Preset) -> None:
    node = parse(render(preset), "deploy.yaml", environ=None)
    assert node is not None
    Draft202012Validator(deployment_schema()).validate(plain(node))


def test_the_suggestion_in_the_file_works_uncommented(preset: Preset, tmp_path: Path) -> None:
    text = render(preset)
    path = tmp_path / "deploy.yaml"
    path.write_text(text.replace("# speculation:", "speculation:"))
    speculation = load(path, environ={}).deployment.engine.speculation
    assert speculation == NGram(max_draft_len=5)


def test_every_reason_belongs_to_a_field_of_some_preset() -> None:
    presets = [choose(SOURCE, gpu=gpu, goal=goal) for gpu in TARGETS for goal in GOALS]
    reasons = {field for preset in presets for field in preset.reasons}
    assert reasons <= {field for preset in presets for field in preset.values}


GOALS: tuple[Goal, Goal] = ("latency", "throughput")


@pytest.mark.parametrize("gpu", TARGETS)
def test_latency_means_smaller_batches_and_steps(gpu: Gpu | None) -> None:
    fast, full = (choose(SOURCE, gpu=gpu, goal=goal).deployment.engine.limits for goal in GOALS)
    assert fast.max_batch_size < full.max_batch_size
    assert fast.max_num_tokens < full.max_num_tokens
    assert fast.max_seq_len == full.max_seq_len


@pytest.mark.parametrize(
    ("name", "weights", "kv_cache"),
    [
        ("A10", "int4_awq", "none"),
        ("A100-80", "int4_awq", "none"),
        ("L4", "fp8", "fp8"),
        ("H100", "fp8", "fp8"),
        ("B200", "nvfp4", "fp8"),
        ("GB200", "nvfp4", "fp8"),
        ("RTX 4090", "fp8", "fp8"),
        ("RTX 5090", "fp8", "fp8"),
    ],
)
def test_formats_follow_what_the_gpu_computes_in(name: str, weights: str, kv_cache: str) -> None:
    quantization = choose(SOURCE, gpu=find_gpu(name), goal="latency").deployment.quantization
    assert (quantization.weights, quantization.kv_cache) == (weights, kv_cache)


def test_the_cpu_preset_takes_the_cpu_runtime() -> None:
    deployment = choose("sample:smollm2-135m", gpu=None, goal="latency").deployment
    assert deployment.engine.runtime == "openvino"
    assert deployment.name == "smollm2-135m"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("h100", "H100"),
        ("NVIDIA H100 80GB HBM3", None),
        ("H100-SXM5", "H100"),
        ("a100_80", "A100-80"),
        ("A100 80GB", "A100-80"),
        ("rtx4090", "RTX 4090"),
        ("GeForce RTX 5090", "RTX 5090"),
        ("gb200", "GB200"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("A100 80GB PCIe", "A100-80"),
        ("RTX 6000 Ada Generation", "RTX 6000 Ada"),
    ],
)
def test_gpus_go_by_many_spellings(written: str, name: str | None) -> None:
    if name is not None:
        assert find_gpu(written).name == name
        return
    with pytest.raises(SpecError):
        find_gpu(written)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("A100", "did you mean A100-40 or A100-80?"),
        ("H1000", "did you mean H100?"),
        ("TPU", "known: A10, A100-40"),
        ("", "known: A10, A100-40"),
    ],
)
def test_an_unknown_gpu_is_told(written: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        find_gpu(written)
    assert (caught.value.hint or "").startswith(hint)


def test_gpu_facts_are_plausible() -> None:
    for gpu in GPUS:
        # The figure in the name, where there is one, is what the driver reports or a little less.
        named = re.search(r"-(40|80)$", gpu.name)
        if named:
            assert gpu.memory == int(named[1]) * 2**30
        assert (8, 0) <= gpu.compute_capability <= (12, 0)
        assert find_gpu(gpu.name) is gpu
        # A byte from memory feeds 100 to 420 operations of 16 bit on every card of this decade.
        assert 100 <= gpu.rates.bf16 / gpu.bandwidth <= 420
        assert gpu.rates.int8 >= 2 * gpu.rates.bf16 * 0.99
        assert bool(gpu.rates.fp8) == (gpu.compute_capability >= (8, 9))
        assert bool(gpu.rates.fp4) == (gpu.compute_capability >= (10, 0))
        assert gpu.link < gpu.bandwidth
        assert gpu.source


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (SOURCE, "llama-3-1-8b-instruct"),
        ("sample:smollm2-135m", "smollm2-135m"),
        ("./weights/SmolLM2.Q4_1.gguf", "smollm2-q4_1"),
        ("/models/My Model/", "my-model"),
        ("hf://x/tensorrt_llm", "tensorrt_llm-service"),
        ("hf://x/" + "a" * 90, "a" * 55),
        ("./模型", "model"),
        (".", "model"),
    ],
)
def test_names_come_from_the_model(source: str, name: str) -> None:
    assert name_from(source) == name
    assert choose(source, gpu=None, goal="latency").deployment.name == name


def test_a_wrong_name_is_told_by_its_flag() -> None:
    with pytest.raises(SpecError) as caught:
        choose(SOURCE, gpu=None, goal="latency", name="My Chat")
    assert caught.value.where == "--name"
    assert caught.value.hint == "write my-chat"


def test_a_bare_hub_name_is_told_apart_from_a_folder() -> None:
    with pytest.raises(SpecError) as caught:
        choose("meta-llama/Llama-3.1-8B", gpu=None, goal="latency")
    assert "hf://meta-llama/Llama-3.1-8B" in (caught.value.hint or "")


@pytest.mark.parametrize("source", ["./a: b # c", "./${HOME}", "./a\nb", "./'\"", "./- x"])
def test_awkward_paths_survive(source: str, tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_text(render(choose(source, gpu=None, goal="latency")), encoding="utf-8")
    assert load(path, environ={}).deployment.model.source == source
