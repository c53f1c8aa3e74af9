"""The estimate of times against runs of TensorRT-LLM on real GPUs.

Every fourth of the runs that the general factors were fitted to, as published by NVIDIA's
ai-dynamo/aiconfigurator (systems/silicon_sample.csv at 095f58a51c4c): times per output token at a
number of users. The 70B model's cache is taken to be FP8, as in InferenceMAX's recipes.
"""

from __future__ import annotations

import csv
import statistics
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from model_shapes import LLAMA_8B, LLAMA_70B, QWEN3_32B

from toolkit.capacity.calibration import Observation, calibrate
from toolkit.capacity.efficiency import TENSORRT_LLM
from toolkit.capacity.serving import Replica, with_running
from toolkit.capacity.traffic import Traffic
from toolkit.capacity.work import gpu_device, gpu_work
from toolkit.quantize.check import check
from toolkit.spec.gpus import find_gpu
from toolkit.spec.models import Parallelism, Quantization

MODELS = {
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_8B,
    "meta-llama/Llama-3.1-70B": LLAMA_70B,
    "Qwen/Qwen3-32B": QWEN3_32B,
}
Run = dict[str, str]
RUNS: list[Run] = list(csv.DictReader((Path(__file__).parent / "tensorrt_llm_runs.csv").open()))


@cache
def replica_of(model: str, gpu: str, weights: str, kv_cache: str, tensor: int) -> Replica:
    arch = MODELS[model]
    spec = Quantization.model_validate({"weights": weights, "kv_cache": kv_cache})
    resolved = check(arch, spec)
    work = gpu_work(arch, resolved, Parallelism(tensor=tensor))
    return Replica(work, gpu_device(find_gpu(gpu), resolved), TENSORRT_LLM)


def replica(run: Run) -> Replica:
    return replica_of(run["model"], run["gpu"], run["weights"], run["kv_cache"], int(run["tensor"]))


def traffic(run: Run) -> Traffic:
    return Traffic(int(run["prompt_tokens"]), int(run["output_tokens"]))


def error(run: Run) -> float:
    made = with_running(replica(run), traffic(run), int(run["users"]))
    return made.tpot_s * 1000 / float(run["tpot_ms"]) - 1


def test_published_runs_are_predicted() -> None:
    errors = sorted(abs(error(run)) for run in RUNS)
    assert len(errors) == 135
    assert statistics.median(errors) < 0.08
    assert errors[int(0.9 * len(errors))] < 0.2


@pytest.mark.parametrize("gpu", ["H100", "H200", "B200"])
@pytest.mark.parametrize("tensor", ["1", "2", "4", "8"])
def test_no_gpu_and_no_number_of_them_is_off_as_a_whole(gpu: str, tensor: str) -> None:
    errors = [error(run) for run in RUNS if (run["gpu"], run["tensor"]) == (gpu, tensor)]
    assert errors
    assert abs(statistics.median(errors)) < 0.15


def test_calibration_on_some_runs_predicts_the_others() -> None:
    chosen = ("Qwen/Qwen3-32B", "H100", "1")
    runs = [run for run in RUNS if (run["model"], run["gpu"], run["tensor"]) == chosen]
    seen, unseen = runs[::2], runs[1::2]
    observations = [
        Observation(run["users"], traffic(run), int(run["users"]), float(run["tpot_ms"]) / 1000)
        for run in seen
    ]
    made = calibrate(replica(runs[0]), observations, source="a test")
    calibrated = replace(replica(runs[0]), factors=made.factors)

    def missed(which: Replica) -> float:
        return statistics.mean(
            abs(
                with_running(which, traffic(run), int(run["users"])).tpot_s
                * 1000
                / float(run["tpot_ms"])
                - 1
            )
            for run in unseen
        )

    assert missed(calibrated) < 0.07
    assert missed(calibrated) < 0.85 * missed(replica(runs[0]))
