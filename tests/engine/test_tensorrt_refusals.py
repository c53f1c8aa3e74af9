"""Deployments that cannot work on NVIDIA GPUs are refused by the field's name, with a way out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from model_shapes import LLAMA_1B, LLAMA_8B, MIXTRAL, QWEN3_32B

from toolkit.checkpoint.architecture import Architecture
from toolkit.checkpoint.rope import OtherRope
from toolkit.engine.nvidia import target_of
from toolkit.engine.pytorch import check as check_pytorch
from toolkit.engine.tensorrt import check as check_tensorrt
from toolkit.errors import ToolkitError, UnsupportedError
from toolkit.releases import release
from toolkit.spec.gpus import Gpu, find_gpu
from toolkit.spec.models import Deployment, Engine, Quantization

A100, L4, H100, B200 = (find_gpu(name) for name in ("A100-80", "L4", "H100", "B200"))
T4 = replace(L4, name="T4", memory=15_360 * 2**20, compute_capability=(7, 5))
NGRAM = {"method": "ngram", "max_draft_len": 4}
DRAFT = {"method": "draft_model", "draft": {"source": "./draft"}}
TWO = {"tensor": 2}


@dataclass(frozen=True)
class Case:
    """A deployment and the field that is named; ``hint`` is part of what would work."""

    where: str
    runtime: str = "pytorch"
    engine: dict[str, Any] = field(default_factory=dict)
    quantization: dict[str, Any] = field(default_factory=dict)
    arch: Architecture = LLAMA_8B
    draft: Architecture | None = None
    gpu: Gpu | None = H100
    release: str = "1.2.1"
    hint: str = ""


def engine_case(where: str, hint: str = "", **engine: Any) -> Case:
    return Case(where, "tensorrt", engine, hint=hint)


def formats(weights: str, kv_cache: str = "none") -> dict[str, Any]:
    return {"weights": weights, "kv_cache": kv_cache}


CASES: dict[str, Case] = {
    # format x compute capability x runtime x release
    "fp8 on Ampere": Case(
        "quantization.weights", quantization=formats("fp8"), gpu=A100, hint="int4_awq"
    ),
    "w4a8 on Ampere": Case("quantization.weights", quantization=formats("w4a8_awq"), gpu=A100),
    "nvfp4 on Hopper": Case("quantization.weights", quantization=formats("nvfp4"), hint="fp8"),
    "nvfp4 engine on Hopper": Case(
        "quantization.weights", "tensorrt", quantization=formats("nvfp4"), hint="fp8"
    ),
    "fp8 engine on Ampere": Case(
        "quantization.weights", "tensorrt", quantization=formats("fp8"), gpu=A100, hint="int4_awq"
    ),
    "smooth quantization in the LLM API": Case(
        "quantization.weights", quantization=formats("int8_sq"), hint="engine.runtime: tensorrt"
    ),
    "smooth quantization, no GPU named": Case(
        "quantization.weights", quantization=formats("int8_sq"), gpu=None, hint="tensorrt"
    ),
    "int8 cache in the LLM API": Case(
        "quantization.kv_cache", quantization=formats("none", "int8")
    ),
    "nvfp4 cache on Hopper": Case("quantization.kv_cache", quantization=formats("fp8", "nvfp4")),
    "nvfp4 cache of an engine": Case(
        "quantization.kv_cache", "tensorrt", quantization=formats("nvfp4", "nvfp4"), gpu=B200
    ),
    "nvfp4 cache with nvfp4 weights": Case(
        "quantization.kv_cache",
        quantization=formats("nvfp4", "nvfp4"),
        gpu=B200,
        release="1.3.0rc27",
        hint="fp8",
    ),
    "int4 on Blackwell with 1.0": Case(
        "quantization.weights", quantization=formats("int4_awq"), gpu=B200, release="1.0.0"
    ),
    "fp8 cache of an engine on Ampere": Case(
        "quantization.kv_cache", "tensorrt", quantization=formats("none", "fp8"), gpu=A100
    ),
    "int4 engine on Blackwell": Case(
        "quantization.weights",
        "tensorrt",
        quantization=formats("int4_awq"),
        gpu=B200,
        hint="engine.runtime: pytorch",
    ),
    "smooth quantization on Blackwell": Case(
        "quantization.weights", "tensorrt", quantization=formats("int8_sq"), gpu=B200
    ),
    "int8 cache on Blackwell": Case(
        "quantization.kv_cache",
        "tensorrt",
        {"kv_cache": {"reuse": False}, "batching": {"chunked_prefill": True}},
        formats("none", "int8"),
        gpu=B200,
    ),
    "a Turing GPU": Case("quantization.weights", gpu=T4),
    "a GPU newer than the release": Case(
        "quantization.weights",
        gpu=replace(B200, name="B300", memory=2**38, compute_capability=(10, 3)),
        release="1.0.0",
    ),
    "an engine of a release without": Case(
        "engine.runtime", "tensorrt", release="1.3.0rc27", hint="toolkit migrate"
    ),
    "an AWQ block that does not divide": Case(
        "quantization.block_size", quantization={"weights": "int4_awq", "block_size": 48}
    ),
    "a block cut by tensor parallelism": Case(
        "quantization.weights",
        engine={"parallelism": {"tensor": 32}},
        quantization=formats("w4a8_awq"),
        arch=replace(LLAMA_8B, num_kv_heads=32, intermediate_size=14336 + 32),
    ),
    "a quantized checkpoint as an engine": Case(
        "model.source", "tensorrt", arch=replace(LLAMA_8B, quantization="modelopt"), hint="pytorch"
    ),
    "a checkpoint of another quantizer": Case(
        "model.source", arch=replace(LLAMA_8B, quantization="bitsandbytes")
    ),
    "quantizing twice": Case(
        "quantization.weights",
        quantization=formats("fp8"),
        arch=replace(LLAMA_8B, quantization="modelopt"),
    ),
    # parallelism
    "heads by tensor": Case(
        "engine.parallelism.tensor", engine={"parallelism": {"tensor": 3}}, hint="1, 2, 4, 8"
    ),
    "KV heads by tensor in an engine": engine_case(
        "engine.parallelism.tensor", "1, 2, 4, 8", parallelism={"tensor": 16}
    ),
    "KV heads that cannot be repeated": Case(
        "engine.parallelism.tensor",
        engine={"parallelism": {"tensor": 4}},
        arch=replace(LLAMA_8B, num_heads=24, num_kv_heads=6),
    ),
    "MLP width by tensor": Case(
        "engine.parallelism.tensor",
        engine={"parallelism": {"tensor": 4}},
        arch=replace(LLAMA_8B, intermediate_size=14338),
    ),
    "layers by pipeline in an engine": engine_case(
        "engine.parallelism.pipeline", parallelism={"pipeline": 5}
    ),
    "more stages than layers": Case(
        "engine.parallelism.pipeline", engine={"parallelism": {"pipeline": 64}}
    ),
    "experts of a dense model": Case(
        "engine.parallelism.expert", engine={"parallelism": {"tensor": 2, "expert": 2}}
    ),
    "experts that do not divide": Case(
        "engine.parallelism.expert",
        engine={"parallelism": {"tensor": 16, "expert": 16}},
        arch=MIXTRAL,
        hint="1, 2, 4, 8",
    ),
    "attention data parallelism on one GPU": Case(
        "engine.parallelism.attention_data_parallel",
        engine={"parallelism": {"attention_data_parallel": True}},
    ),
    "attention data parallelism of an engine": engine_case(
        "engine.parallelism.attention_data_parallel",
        "pytorch",
        parallelism={"tensor": 2, "attention_data_parallel": True},
    ),
    # limits
    "a context past the model's": Case(
        "engine.limits.max_seq_len", engine={"limits": {"max_seq_len": 200_000}}, hint="131072"
    ),
    "drafts that do not fit a step": Case(
        "engine.limits.max_num_tokens",
        engine={"limits": {"max_batch_size": 512, "max_num_tokens": 2048}, "speculation": NGRAM},
        hint="2560",
    ),
    "no room for a prompt's block": Case(
        "engine.limits.max_num_tokens",
        engine={"limits": {"max_batch_size": 64, "max_num_tokens": 64}},
        hint="95",
    ),
    "a tree that does not fit a step": engine_case(
        "engine.limits.max_num_tokens", "4096", speculation={"method": "medusa", "source": "./m"}
    ),
    "limits that the builder clips": engine_case(
        "engine.limits.max_num_tokens",
        limits={
            "max_batch_size": 1,
            "max_input_len": 500,
            "max_seq_len": 1000,
            "max_num_tokens": 2000,
        },
    ),
    "blocks of 48 tokens": Case(
        "engine.kv_cache.tokens_per_block", engine={"kv_cache": {"tokens_per_block": 48}}, hint="64"
    ),
    "other blocks than 1.0 has": Case(
        "engine.kv_cache.tokens_per_block",
        engine={"kv_cache": {"tokens_per_block": 64}},
        release="1.0.0",
    ),
    "a cache below one request": Case(
        "engine.kv_cache.size",
        engine={"kv_cache": {"size": "256MiB"}},
        release="1.0.0",
        hint="512",
    ),
    "offload without reuse": Case(
        "engine.kv_cache.host_offload",
        engine={"kv_cache": {"reuse": False, "host_offload": "8GiB"}},
    ),
    # paged context attention
    "reuse with an int8 cache": Case(
        "engine.kv_cache.reuse", "tensorrt", quantization=formats("int8_sq", "int8")
    ),
    "chunks with an int8 cache": Case(
        "engine.batching.chunked_prefill",
        "tensorrt",
        {"kv_cache": {"reuse": False}},
        formats("int8_sq", "int8"),
    ),
    "reuse with an fp8 cache under 4-bit weights": Case(
        "engine.kv_cache.reuse", "tensorrt", quantization=formats("int4_awq", "fp8"), hint="fp8"
    ),
    "an fp8 cache without fp8 attention": Case(
        "engine.tensorrt.fp8_context_attention",
        "tensorrt",
        {"tensorrt": {"fp8_context_attention": False}},
        formats("fp8", "fp8"),
    ),
    # speculation
    "EAGLE-3 in an engine": engine_case(
        "engine.speculation.method",
        "draft_model",
        speculation={"method": "eagle3", "source": "./e"},
    ),
    "n-grams in an engine": engine_case("engine.speculation.method", speculation=NGRAM),
    "Medusa in the LLM API": Case(
        "engine.speculation.method",
        engine={"speculation": {"method": "medusa", "source": "./m"}},
        hint="eagle3",
    ),
    "lookahead in the LLM API": Case(
        "engine.speculation.method", engine={"speculation": {"method": "lookahead"}}
    ),
    "prediction layers that are not there": Case(
        "engine.speculation.method", engine={"speculation": {"method": "mtp"}}, hint="ngram"
    ),
    "more prediction layers than there are": Case(
        "engine.speculation.num_nextn_predict_layers",
        engine={"speculation": {"method": "mtp", "num_nextn_predict_layers": 3}},
        arch=replace(LLAMA_8B, mtp_layers=1),
        hint="1",
    ),
    "a draft of another vocabulary": Case(
        "engine.speculation.draft.source",
        engine={"speculation": DRAFT},
        draft=replace(LLAMA_1B, vocab_size=32000),
    ),
    "a draft engine of another vocabulary": Case(
        "engine.speculation.draft.source",
        "tensorrt",
        {"speculation": DRAFT},
        draft=replace(LLAMA_1B, vocab_size=32000),
    ),
    "a draft with a short context": Case(
        "engine.speculation.draft.source",
        engine={"speculation": DRAFT},
        draft=replace(LLAMA_1B, max_position=2048),
    ),
    "a draft that cannot be split": Case(
        "engine.speculation.draft.source",
        engine={"speculation": DRAFT, "parallelism": TWO},
        draft=replace(LLAMA_1B, num_heads=9, num_kv_heads=9),
    ),
    "pausing speculation in an engine": engine_case(
        "engine.speculation.max_concurrency", speculation={**DRAFT, "max_concurrency": 4}
    ),
    "pausing speculation in 1.0": Case(
        "engine.speculation.max_concurrency",
        engine={"speculation": {**NGRAM, "max_concurrency": 4}},
        release="1.0.0",
    ),
    "prompt logits with drafts": engine_case(
        "engine.tensorrt.gather_context_logits",
        tensorrt={"gather_context_logits": True},
        speculation=DRAFT,
    ),
    "answer logits with a draft model": engine_case(
        "engine.tensorrt.gather_generation_logits",
        tensorrt={"gather_generation_logits": True},
        speculation=DRAFT,
    ),
    "a tree that is not as deep as its engine": engine_case(
        "engine.speculation.num_layers",
        "num_layers: 4",
        limits={"max_batch_size": 8},
        speculation={"method": "eagle", "source": "./e", "num_layers": 2},
    ),
    "EAGLE over stages": engine_case(
        "engine.parallelism.pipeline",
        parallelism={"pipeline": 2},
        limits={"max_batch_size": 8},
        speculation={"method": "eagle", "source": "./e"},
    ),
    "EAGLE with quantized weights": Case(
        "quantization.weights",
        "tensorrt",
        {"limits": {"max_batch_size": 8}, "speculation": {"method": "eagle", "source": "./e"}},
        formats("fp8"),
    ),
    "grammars beside drafts in 1.0": Case(
        "engine.guided_decoding",
        engine={"speculation": NGRAM, "guided_decoding": "xgrammar"},
        release="1.0.0",
        hint="newer",
    ),
    "overlap beside a draft model": Case(
        "engine.pytorch.overlap_scheduler",
        engine={"pytorch": {"overlap_scheduler": True}, "speculation": DRAFT},
    ),
    # what one runtime or release does not have
    "an engine's section in the LLM API": Case(
        "engine.tensorrt", engine={"tensorrt": {"reduce_fusion": True}}, hint="tensorrt"
    ),
    "the LLM API's section in an engine": engine_case(
        "engine.pytorch", "pytorch", pytorch={"autotuner": False}
    ),
    "chunking order in an engine": engine_case(
        "engine.batching.chunking", batching={"chunking": "equal_progress"}
    ),
    "streaming by several steps in an engine": engine_case(
        "engine.batching.stream_interval", "pytorch", batching={"stream_interval": 4}
    ),
    "graphs without padding in an engine": engine_case(
        "engine.cuda_graphs.padding",
        "pytorch",
        cuda_graphs={"enabled": True, "padding": False},
    ),
    "another type than the checkpoint's in an engine": engine_case(
        "engine.dtype", "pytorch", dtype="float16"
    ),
    "static batching in an engine": engine_case(
        "engine.batching.policy", "max_utilization", batching={"policy": "static_batch"}
    ),
    "llguidance in an engine": engine_case(
        "engine.guided_decoding", "xgrammar", guided_decoding="llguidance"
    ),
    "queue delay in 1.0": Case(
        "engine.batching.queue_delay",
        engine={"batching": {"queue_delay": "5ms"}},
        release="1.0.0",
    ),
    "queue time-out in the LLM API": Case(
        "engine.batching.queue_timeout",
        engine={"batching": {"queue_timeout": "5s"}},
        hint="serving.default_deadline",
    ),
    "graphs larger than the batch": Case(
        "engine.cuda_graphs.batch_sizes", engine={"cuda_graphs": {"batch_sizes": (1, 512)}}
    ),
    "graph sizes of graphs that are off": Case(
        "engine.cuda_graphs.batch_sizes",
        engine={"cuda_graphs": {"enabled": False, "batch_sizes": (1,)}},
    ),
    "a graph cache without graphs": engine_case(
        "engine.cuda_graphs.cache_size", cuda_graphs={"cache_size": 10}
    ),
    "adapter modules that are not known": engine_case(
        "engine.lora.target_modules",
        "attn_q",
        lora={"adapters": {"sql": "./sql"}, "target_modules": ("q_proj",)},
    ),
    "expert kernels of a later release": Case(
        "engine.pytorch.moe_backend",
        engine={"pytorch": {"moe_backend": "MARLIN"}},
        arch=MIXTRAL,
    ),
    "reduce fusion on one GPU": engine_case(
        "engine.tensorrt.reduce_fusion", tensorrt={"reduce_fusion": True}
    ),
    "reduce fusion with EAGLE": engine_case(
        "engine.tensorrt.reduce_fusion",
        parallelism=TWO,
        limits={"max_batch_size": 8},
        speculation={"method": "eagle", "source": "./e"},
        tensorrt={"reduce_fusion": True},
    ),
    "user buffers without fp8": engine_case(
        "engine.tensorrt.user_buffer",
        parallelism=TWO,
        tensorrt={"reduce_fusion": True, "user_buffer": True},
    ),
    "fp8 products of 16-bit weights": engine_case(
        "engine.tensorrt.gemm_plugin", tensorrt={"gemm_plugin": "fp8"}
    ),
    "low-latency products on Blackwell": Case(
        "engine.tensorrt.low_latency_gemm",
        "tensorrt",
        {"tensorrt": {"low_latency_gemm": True}},
        formats("fp8"),
        gpu=B200,
    ),
    "tuning past a step": engine_case(
        "engine.tensorrt.opt_num_tokens", tensorrt={"opt_num_tokens": 4096}
    ),
    "float32 on a GPU": Case("engine.dtype", engine={"dtype": "float32"}),
    "CPU threads on a GPU": Case("engine.threads", engine={"threads": 8}),
    "a rope that is not written": Case(
        "model.source", arch=replace(LLAMA_8B, rope_scaling=OtherRope("longrope"))
    ),
    "a family without an export": Case("model.source", "tensorrt", arch=QWEN3_32B, hint="pytorch"),
}


def refused(case: Case) -> ToolkitError:
    check = check_pytorch if case.runtime == "pytorch" else check_tensorrt
    with pytest.raises(UnsupportedError) as caught:
        check(
            Engine.model_validate(case.engine),
            Quantization.model_validate(case.quantization),
            case.arch,
            release(case.release),
            case.gpu,
            draft=case.draft,
        )
    return caught.value


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_cannot_work_is_refused_by_name(case: Case) -> None:
    error = refused(case)
    assert (error.where or "") == case.where, error
    assert error.hint, error
    assert case.hint in error.hint


@pytest.mark.parametrize("name", ["1.2.1", "1.4.0rc1"])
def test_no_hint_leads_into_the_next_refusal(name: str) -> None:
    """SmoothQuant engines are refused on Blackwell, and newer releases have no engines."""
    case = Case("quantization.weights", quantization=formats("int8_sq"), gpu=B200, release=name)
    assert "tensorrt" not in (refused(case).hint or "")


def test_the_matrix_is_large_enough() -> None:
    assert len(CASES) >= 40
    assert len({case.where for case in CASES.values()}) >= 25


def deployment(**engine: Any) -> Deployment:
    return Deployment.model_validate(
        {"name": "chat", "model": {"source": "./m"}, "engine": engine, "serving": {"gpu": "H100"}}
    )


def test_an_engine_of_a_new_release_names_the_way_over() -> None:
    with pytest.raises(UnsupportedError) as caught:
        target_of(deployment(runtime="tensorrt", release="1.4.0rc1"))
    assert caught.value.where == "engine.runtime"
    assert "toolkit migrate" in (caught.value.hint or "")
    assert "1.2.1" in (caught.value.hint or "")


def test_the_target_follows_the_file_and_the_flag() -> None:
    target = target_of(deployment())
    assert (target.runtime, target.gpu) == ("pytorch", H100)
    assert target.release.stable
    assert target_of(deployment(), gpu="L4").gpu == L4


def test_the_cpu_runtime_has_no_nvidia_target() -> None:
    with pytest.raises(UnsupportedError, match="CPU"):
        target_of(deployment(runtime="openvino"))


@pytest.mark.parametrize(
    ("gpu", "weights", "kv_cache"),
    [(A100, "int4_awq", "none"), (L4, "fp8", "fp8"), (H100, "fp8", "fp8"), (B200, "nvfp4", "fp8")],
    ids=lambda value: getattr(value, "name", value),
)
def test_auto_becomes_what_the_gpu_computes_with(gpu: Gpu, weights: str, kv_cache: str) -> None:
    auto = Quantization(weights="auto", kv_cache="auto")
    resolved = check_pytorch(Engine(), auto, LLAMA_8B, release("1.3.0rc27"), gpu)
    assert (resolved.weights.name, resolved.kv_cache.name) == (weights, kv_cache)
