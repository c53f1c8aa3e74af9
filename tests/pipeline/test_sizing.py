"""Where a deployment's speed can be estimated, and where the plan says nothing of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from model_shapes import LLAMA_1B, LLAMA_8B, MIXTRAL

from toolkit.bench.host_speed import measure_host
from toolkit.capacity.calibration import Observation, calibrate
from toolkit.capacity.efficiency import CPU_ENGINE
from toolkit.capacity.prices import read_prices
from toolkit.capacity.search import Goal
from toolkit.capacity.traffic import Traffic
from toolkit.checkpoint.architecture import Architecture
from toolkit.errors import UnsupportedError
from toolkit.pipeline.calibrating import keep, key_of, read_known
from toolkit.pipeline.planning import Plan, make_plan
from toolkit.pipeline.sizing import find_deployments, host_device, replica_of, speed_of
from toolkit.spec.gpus import GPUS, find_gpu
from toolkit.spec.models import Deployment, Quantization

CHAT = Traffic(300, 60)


@pytest.fixture(autouse=True)
def _roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same free memory wherever and whenever this runs."""
    monkeypatch.setattr("toolkit.capacity.host.available_memory", lambda: 64 * 2**30)


def deployment(runtime: str = "pytorch", **engine: object) -> Deployment:
    source = {"source": "hf://a/Llama-1B"}
    return Deployment.model_validate(
        {"name": "d", "model": source, "engine": {"runtime": runtime, **engine}}
    )


def planned(runtime: str, arch: Architecture = LLAMA_1B, gpu: str | None = None) -> Plan:
    return make_plan(deployment(runtime), arch, gpu=gpu)


def test_a_gpu_is_estimated_and_no_gpu_is_not() -> None:
    speed = speed_of(planned("pytorch", gpu="L4"), LLAMA_1B, CHAT, {})
    assert speed is not None
    assert [made.running for made in speed.estimates] == [1, 8, 32, 64]
    assert speed_of(planned("pytorch"), LLAMA_1B, CHAT, {}) is None


def test_a_mixture_whose_experts_are_not_known_has_a_plan_but_no_times() -> None:
    plan = planned("pytorch", MIXTRAL, "H200")
    assert speed_of(plan, MIXTRAL, CHAT, {}) is None


def test_a_cpu_is_estimated_once_it_was_calibrated(tmp_path: Path) -> None:
    plan = planned("openvino")
    assert speed_of(plan, LLAMA_1B, CHAT, {}) is None
    device = host_device(20e9, 200e9)
    replica = replica_of(plan, LLAMA_1B, {}, device=device)
    assert replica is not None
    seen = [Observation("2", CHAT, 2, 0.2), Observation("8", CHAT, 8, 0.3)]
    made = calibrate(replica, seen, source="here")
    assert made.worst < 0.05
    keep(tmp_path, key_of("cpu", "openvino"), device, made)
    speed = speed_of(plan, LLAMA_1B, CHAT, read_known(tmp_path))
    assert speed is not None
    assert speed.source == "here"
    assert speed.estimates[1].running == 8
    assert speed.estimates[1].tpot_s == pytest.approx(0.3, rel=0.05)


def test_calibrations_of_several_processors_live_side_by_side(tmp_path: Path) -> None:
    device = host_device(20e9, 200e9)
    replica = replica_of(planned("openvino"), LLAMA_1B, {}, device=device)
    assert replica is not None
    made = calibrate(replica, [Observation("2", CHAT, 2, 0.2)], source="one")
    keep(tmp_path, "cpu openvino", device, made)
    keep(tmp_path, "L4 pytorch", device, made)
    other = replace(made, factors=replace(made.factors, source="two"))
    keep(tmp_path, "cpu openvino", device, other)
    known = read_known(tmp_path)
    assert {name: each.factors.source for name, each in known.items()} == {
        "cpu openvino": "two",
        "L4 pytorch": "one",
    }
    assert known["L4 pytorch"].device == device


def test_only_what_can_be_built_is_found() -> None:
    goal = Goal(Traffic(1000, 250), 20, tpot_s=0.05)
    found = find_deployments(deployment("tensorrt"), LLAMA_8B, goal, list(GPUS), read_prices(), {})
    assert found
    for option in found:
        formats = {"weights": option.weights, "kv_cache": option.kv_cache}
        wanted = deployment("tensorrt", parallelism={"tensor": option.tensor})
        spec = wanted.quantization.model_copy(update=formats)
        made = wanted.model_copy(update={"quantization": spec})
        assert make_plan(made, LLAMA_8B, gpu=option.gpu.name).gpu == option.gpu.name


def test_a_cpu_deployment_is_not_searched_for() -> None:
    with pytest.raises(UnsupportedError):
        find_deployments(
            deployment("openvino"), LLAMA_1B, Goal(CHAT, 1), [find_gpu("L4")], read_prices(), {}
        )


def test_this_machine_s_processor_has_speeds() -> None:
    speed = measure_host()
    assert 1e8 < speed.bandwidth < 1e13
    assert 1e8 < speed.rate < 1e14
    assert CPU_ENGINE.source.startswith("a guess")


def test_a_model_whose_layers_are_not_known_is_refused_and_not_called_too_slow() -> None:
    with pytest.raises(UnsupportedError) as caught:
        find_deployments(
            deployment(), MIXTRAL, Goal(CHAT, 1), [find_gpu("H200")], read_prices(), {}
        )
    assert "mixtral" in str(caught.value)


def test_a_draft_on_the_cpu_reads_its_weights_in_16_bit() -> None:
    plan = make_plan(
        deployment("openvino").model_copy(
            update={"quantization": Quantization.model_validate({"weights": "int4_awq"})}
        ),
        LLAMA_1B,
        draft=LLAMA_1B,
    )
    device = host_device(20e9, 200e9)
    made = replica_of(plan, LLAMA_1B, {}, draft=LLAMA_1B, device=device)
    assert made is not None
    assert made.draft is not None
    assert made.draft.weight_bytes > 3 * made.work.weight_bytes


@pytest.mark.parametrize("runtime", ["openvino", "pytorch"])
def test_a_limit_on_drafting_is_kept(runtime: str) -> None:
    limited = {"method": "ngram", "max_draft_len": 4, "max_concurrency": 4}
    gpu = None if runtime == "openvino" else "L4"
    for speculation, most in ((limited, 4), (limited | {"max_concurrency": None}, 0)):
        made = replica_of(
            make_plan(deployment(runtime, speculation=speculation), LLAMA_1B, gpu=gpu),
            LLAMA_1B,
            {},
            device=host_device(20e9, 200e9),
        )
        assert made is not None
        assert made.most_drafting == most
