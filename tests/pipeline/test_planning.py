"""A plan settles what was left open, sums the memory, and refuses before any weight is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from model_shapes import LLAMA_1B, LLAMA_8B, MIXTRAL

from toolkit.capacity.host import HostPlan, fit_host
from toolkit.checkpoint.architecture import Architecture
from toolkit.doctor.gpus import FoundGpu
from toolkit.errors import SpecError, UnsupportedError
from toolkit.pipeline import planning
from toolkit.pipeline.planning import Plan, make_plan, settle
from toolkit.quantize.check import check
from toolkit.releases import release
from toolkit.spec.models import Deployment, Engine, Quantization

GIB = 2**30
DRAFT = {"method": "draft_model", "draft": {"source": "./d"}, "max_draft_len": 4}


@pytest.fixture(autouse=True)
def _roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same free memory wherever and whenever this runs."""
    monkeypatch.setattr("toolkit.capacity.host.available_memory", lambda: 64 * 2**30)


def deployment(
    engine: dict[str, Any],
    formats: tuple[str, str] = ("none", "none"),
    serving: dict[str, Any] | None = None,
) -> Deployment:
    weights, kv_cache = formats
    return Deployment.model_validate(
        {
            "name": "chat",
            "model": {"source": "./model"},
            "quantization": {"weights": weights, "kv_cache": kv_cache},
            "engine": engine,
            "serving": serving or {},
        }
    )


def planned(
    engine: dict[str, Any],
    formats: tuple[str, str] = ("none", "none"),
    *,
    serving: dict[str, Any] | None = None,
    arch: Architecture = LLAMA_8B,
    **more: Any,
) -> Plan:
    return make_plan(deployment(engine, formats, serving), arch, **more)


def test_an_engine_is_planned_with_its_whole_command() -> None:
    made = planned({"runtime": "tensorrt"}, ("fp8", "fp8"), gpu="H100")
    assert (made.runtime, made.release, made.gpu) == ("tensorrt", "1.2.1", "H100")
    assert made.container is not None
    assert len(made.commands) == 1
    assert made.commands[0].startswith("trtllm-build --checkpoint_dir ")
    assert "--use_paged_context_fmha enable" in made.commands[0]
    assert made.arguments == {}


def test_a_draft_model_is_counted_and_built() -> None:
    alone = planned({"runtime": "tensorrt"}, gpu="H100")
    both = planned({"runtime": "tensorrt", "speculation": DRAFT}, gpu="H100", draft=LLAMA_1B)
    assert len(both.commands) == 2
    assert alone.memory is not None
    assert both.memory is not None
    assert both.memory.used - alone.memory.used > 2 * LLAMA_1B.parameters * 0.9


def test_the_llm_api_is_planned_with_its_arguments() -> None:
    made = planned({"runtime": "pytorch", "release": "1.2.1"}, ("fp8", "none"), gpu="H100")
    assert made.commands == ()
    assert made.arguments["max_batch_size"] == 64


def test_auto_follows_the_gpu() -> None:
    here = planned({}, arch=LLAMA_1B)
    assert (here.runtime, here.release, here.gpus_per_replica) == ("openvino", None, 0)
    assert planned({}, gpu="H100").runtime == "pytorch"
    assert planned({}, serving={"gpu": "H100"}).runtime == "pytorch"
    assert planned({}, ("auto", "auto"), gpu="B200").resolved.weights.name == "nvfp4"


def test_a_cpu_deployment_is_not_planned_for_a_gpu() -> None:
    with pytest.raises(UnsupportedError, match="CPUs"):
        planned({"runtime": "openvino"}, gpu="H100")


def test_without_a_gpu_the_plan_says_what_it_left_out() -> None:
    made = planned({"runtime": "pytorch"})
    assert made.memory is None
    assert made.longest_request is None
    assert any("--gpu" in note for note in made.notes)


def test_a_release_without_an_image_says_so_and_one_that_is_named_counts() -> None:
    engine = {"runtime": "pytorch", "release": "1.3.0rc27"}
    bare = planned(engine, gpu="H100")
    assert bare.container is None
    assert any("serving.image" in note for note in bare.notes)
    named = planned(engine, gpu="H100", serving={"image": "example.com/own:1"})
    assert named.container == "example.com/own:1"
    assert not any("serving.image" in note for note in named.notes)


def test_what_does_not_fit_is_refused_with_the_sum() -> None:
    with pytest.raises(UnsupportedError) as caught:
        planned({"runtime": "tensorrt", "limits": {"max_seq_len": 131072}}, gpu="A10")
    assert "KV cache" in "\n".join(caught.value.details)
    assert "weights" in "\n".join(caught.value.details)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("engine", "formats", "gpu", "where"),
    [
        ({"runtime": "tensorrt"}, ("fp8", "none"), "A100-80", "quantization.weights"),
        ({"runtime": "tensorrt", "release": "1.3.0rc27"}, ("none", "none"), "H100",
         "engine.runtime"),
        ({"runtime": "pytorch", "tensorrt": {"multiple_profiles": True}}, ("none", "none"),
         "H100", "engine.tensorrt"),
        ({"runtime": "openvino", "limits": {"max_seq_len": 900_000}}, ("none", "none"), None,
         "engine.limits.max_seq_len"),
        ({"runtime": "pytorch", "speculation": {"method": "medusa", "source": "./h"}},
         ("none", "none"), "H100", "engine.speculation.method"),
    ],
)  # fmt: skip
def test_every_runtime_refuses_by_field(
    engine: dict[str, Any], formats: tuple[str, str], gpu: str | None, where: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        settle(deployment(engine, formats), LLAMA_8B, gpu=gpu)
    assert caught.value.where == where
    assert caught.value.hint


def test_an_unknown_gpu_is_a_mistake_of_the_flag() -> None:
    with pytest.raises(SpecError) as caught:
        planned({}, gpu="H1000X")
    assert caught.value.where == "--gpu"


_H100 = FoundGpu(0, "u", "NVIDIA H100 80GB HBM3", 81_559 * 2**20, 0, (9, 0))
_A100 = FoundGpu(0, "u", "NVIDIA A100-SXM4-80GB", 81_920 * 2**20, 0, (8, 0))


@pytest.mark.parametrize(
    ("gpus", "found"),
    [
        ((), None),
        ((_H100, _H100), "H100"),
        ((replace(_H100, name="NVIDIA H100 PCIe"),), "H100-PCIe"),
        ((_A100,), "A100-80"),
        ((replace(_A100, name="NVIDIA A100-PCIE-40GB", memory=40_960 * 2**20),), "A100-40"),
        ((_H100, _A100), None),
        ((replace(_H100, name="NVIDIA Quantum 9"),), None),
        ((replace(_H100, memory=10 * GIB),), None),
    ],
)
def test_the_machine_s_own_gpus_are_recognized(
    gpus: tuple[FoundGpu, ...], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "read_gpus", lambda: gpus)
    assert planning.detected_gpu() == found


def test_a_derived_draft_has_to_be_smaller() -> None:
    derived = {"method": "draft_model", "draft": {"derive_layers": 32}}
    with pytest.raises(UnsupportedError, match="layers"):
        planned({"speculation": derived})


def test_a_mixture_is_planned_by_the_size_in_its_name() -> None:
    named = deployment({"runtime": "pytorch", "parallelism": {"tensor": 4}},
                       serving={"gpus": [0, 1, 2, 3]})  # fmt: skip
    source = named.model.model_copy(update={"source": "hf://mistralai/Mixtral-8x7B-v0.1"})
    named = named.model_copy(update={"model": source})
    memory = make_plan(named, MIXTRAL, gpu="H100").memory
    assert memory is not None
    assert memory.used > 8 * 7e9 * 2 / 4


def on_host(engine: dict[str, Any], weights: str = "none", available: int = 64 * GIB) -> HostPlan:
    resolved = check(LLAMA_1B, Quantization.model_validate({"weights": weights}))
    return fit_host(Engine.model_validate(engine), resolved, LLAMA_1B, available=available)


def test_the_cpu_cache_is_what_the_limits_need_unless_a_size_is_given() -> None:
    limits = {"max_batch_size": 8, "max_seq_len": 4096}
    made = on_host({"limits": limits})
    assert made.kv_tokens == 8 * 4096
    assert made.pool == 8 * 4096 * LLAMA_1B.kv_bytes_per_token(2)
    sized = on_host({"limits": limits, "kv_cache": {"size": "512MiB"}})
    assert sized.pool == 512 * 2**20


def test_the_cpu_cache_is_cut_to_what_is_free() -> None:
    limits = {"max_batch_size": 256, "max_seq_len": 4096}
    tight = on_host({"limits": limits}, available=16 * GIB)
    assert tight.used + tight.pool < 16 * GIB
    assert tight.notes


def test_smaller_formats_take_less_on_the_cpu() -> None:
    sizes = [on_host({}, name).fixed[0].bytes for name in ("none", "int8_sq", "int4_awq")]
    assert sizes == sorted(sizes, reverse=True)
    # Converted to float32 and packed: twice four bytes for each of the layers' weights, and twice
    # more for one of the MLP's products.
    table = LLAMA_1B.vocab_size * LLAMA_1B.hidden_size
    layers = LLAMA_1B.parameters - table
    wide = LLAMA_1B.num_layers * LLAMA_1B.hidden_size * LLAMA_1B.intermediate_size
    assert sizes[0] == pytest.approx(8 * layers + 6 * table + 8 * wide, rel=0.01)


@pytest.mark.parametrize(
    ("available", "where"), [(GIB, "model.source"), (12 * GIB, "engine.limits.max_seq_len")]
)
def test_what_does_not_fit_on_the_cpu_is_refused(available: int, where: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        on_host({"limits": {"max_seq_len": 131072}}, available=available)
    assert caught.value.where == where
    assert caught.value.details


def test_where_a_table_was_read_agrees_with_the_table() -> None:
    told = planned({"runtime": "tensorrt", "release": "1.2.1"}, gpu="H100").notes[-1]
    kinds = {source.checked for source in release("1.2.1").sources["build_flags"]}
    assert ("at the release's tag" in told) == ("tag" in kinds)
    assert ("near it" in told) == ("near" in kinds)
