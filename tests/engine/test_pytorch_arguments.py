"""LLM API arguments: right by the release's table, and nothing of the file is lost."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from model_shapes import LLAMA_8B, MIXTRAL
from nvidia_deployments import FORMATS, PYTORCH
from pydantic import JsonValue

from toolkit.engine.pytorch import (
    ModelPaths,
    argument_problems,
    check,
    llm_arguments,
    request_limits,
)
from toolkit.errors import UnsupportedError
from toolkit.releases import Release, default_release, known_releases, release
from toolkit.spec.gpus import find_gpu
from toolkit.spec.models import Engine, Quantization

H100 = find_gpu("H100")
PATHS = ModelPaths(model="/m", draft="/d", adapters={"sql": "/a/sql", "chat": "/a/chat"})
RELEASES = [one for one in known_releases() if "pytorch" in one.runtimes]
FRACTION = 0.5


def arguments(
    engine: dict[str, Any],
    *,
    of: Release | None = None,
    arch: Any = LLAMA_8B,
    formats: tuple[str, str] = ("none", "none"),
) -> dict[str, JsonValue]:
    chosen = of or default_release("pytorch")
    settings_ = Engine.model_validate(engine)
    wanted = Quantization.model_validate({"weights": formats[0], "kv_cache": formats[1]})
    resolved = check(settings_, wanted, arch, chosen, H100)
    return llm_arguments(settings_, resolved, arch, chosen, paths=PATHS)


def value_at(values: dict[str, JsonValue], path: str) -> JsonValue:
    found: JsonValue = values
    for step in path.split("."):
        assert isinstance(found, dict)
        found = found.get(step)
    return found


@given(engine=PYTORCH, formats=FORMATS, of=st.sampled_from(RELEASES))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_argument_is_in_the_release_with_its_type(
    engine: dict[str, Any], formats: tuple[str, str], of: Release
) -> None:
    try:
        made = arguments(engine, of=of, formats=formats)
    except UnsupportedError:
        assume(False)
    assert list(argument_problems(made, of)) == []
    assert made["model"] == "/m"
    assert value_at(made, "max_batch_size") == engine["limits"]["max_batch_size"]


@pytest.mark.parametrize("of", RELEASES, ids=lambda one: one.version)
def test_speculation_is_asked_for_in_the_words_of_the_release(of: Release) -> None:
    for speculation in (
        {"method": "ngram", "max_matching_ngram_size": 4},
        {"method": "draft_model", "draft": {"source": "./d"}, "max_draft_len": 3},
        {"method": "eagle3", "source": "./e"},
    ):
        made = arguments({"speculation": speculation}, of=of)
        method = of.speculation(str(speculation["method"]))
        section = made["speculative_config"]
        assert isinstance(section, dict)
        assert section["decoding_type"] == method.decoding_type
        if speculation["method"] != "ngram":
            assert "/d" in section.values()
        for path, text in method.requires.items():
            assert str(value_at(made, path)).lower() == text


FIELDS: list[tuple[str, dict[str, Any], dict[str, JsonValue]]] = [
    ("parallelism", {"parallelism": {"tensor": 4, "pipeline": 2}},
     {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}),
    ("attention data parallelism",
     {"parallelism": {"tensor": 4, "attention_data_parallel": True}},
     {"enable_attention_dp": True}),
    ("reuse", {"kv_cache": {"reuse": False}}, {"kv_cache_config.enable_block_reuse": False}),
    ("partial reuse", {"kv_cache": {"partial_reuse": False}},
     {"kv_cache_config.enable_partial_reuse": False}),
    ("fraction", {"kv_cache": {"free_memory_fraction": FRACTION}},
     {"kv_cache_config.free_gpu_memory_fraction": FRACTION}),
    ("size", {"kv_cache": {"size": "2GiB"}},
     {"kv_cache_config.max_gpu_total_bytes": 2 * 2**30}),
    ("offload", {"kv_cache": {"host_offload": "1GiB"}},
     {"kv_cache_config.host_cache_size": 2**30}),
    ("policy", {"batching": {"policy": "max_utilization"}},
     {"scheduler_config.capacity_scheduler_policy": "MAX_UTILIZATION"}),
    ("chunking", {"batching": {"chunking": "equal_progress"}},
     {"scheduler_config.context_chunking_policy": "EQUAL_PROGRESS"}),
    ("whole prompts", {"batching": {"chunked_prefill": False},
                       "limits": {"max_num_tokens": 4096}},
     {"enable_chunked_prefill": False}),
    ("delay", {"batching": {"queue_delay": "2ms"}}, {"batch_wait_timeout_ms": 2.0}),
    ("grammar", {"guided_decoding": "llguidance"}, {"guided_decoding_backend": "llguidance"}),
    ("no graphs", {"cuda_graphs": {"enabled": False}}, {"cuda_graph_config": None}),
    ("graphs", {}, {"cuda_graph_config.enable_padding": True,
                    "cuda_graph_config.max_batch_size": 64}),
    ("graph sizes", {"cuda_graphs": {"batch_sizes": (8, 1, 8)}},
     {"cuda_graph_config.batch_sizes": [1, 8], "cuda_graph_config.max_batch_size": None}),
    ("no overlap", {"pytorch": {"overlap_scheduler": False}}, {"disable_overlap_scheduler": True}),
    ("overlap", {"pytorch": {"overlap_scheduler": True}}, {"disable_overlap_scheduler": False}),
    ("attention", {"pytorch": {"attention_backend": "flashinfer"}},
     {"attn_backend": "FLASHINFER"}),
    ("type", {"dtype": "float16"}, {"dtype": "float16"}),
    ("adapters", {"lora": {"adapters": {"sql": "./sql", "chat": "./chat"}, "max_rank": 16,
                           "max_on_gpu": 1, "max_on_host": 2}},
     {"lora_config.lora_dir": ["/a/sql", "/a/chat"], "lora_config.max_lora_rank": 16,
      "lora_config.max_loras": 1, "lora_config.max_cpu_loras": 2,
      "lora_config.lora_target_modules": ["attn_q", "attn_k", "attn_v"]}),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "wanted"), [case[1:] for case in FIELDS],
                         ids=[case[0] for case in FIELDS])  # fmt: skip
def test_fields_arrive_where_the_release_wants_them(
    engine: dict[str, Any], wanted: dict[str, JsonValue]
) -> None:
    made = arguments(engine, of=release("1.2.1"))
    assert {path: value_at(made, path) for path in wanted} == wanted


def test_experts_are_dealt_out() -> None:
    engine = {
        "parallelism": {"tensor": 8, "expert": 4},
        "pytorch": {"moe_backend": "CUTLASS"},
    }
    made = arguments(engine, arch=MIXTRAL)
    assert made["moe_expert_parallel_size"] == 4
    assert made["moe_config"] == {"backend": "CUTLASS"}


def test_a_fixed_pool_is_counted_in_tokens_where_the_release_counts_tokens() -> None:
    made = arguments({"kv_cache": {"size": "2GiB"}}, of=release("1.0.0"))
    # 2 x 32 layers x 8 heads x 128 x 2 bytes = 128 KiB a token.
    assert value_at(made, "kv_cache_config.max_tokens") == 2 * 2**30 // (128 * 1024)


def test_the_cache_format_is_said_even_where_the_checkpoint_says_it() -> None:
    assert value_at(arguments({}), "kv_cache_config.dtype") == "auto"
    made = arguments({}, formats=("fp8", "fp8"))
    assert value_at(made, "kv_cache_config.dtype") == "fp8"


NOT_FOR_THE_ENGINE = {
    "engine.parallelism.expert",  # needs experts: a test of its own
    "engine.tensorrt.user_buffer",  # needs reduce_fusion, which is refused
    "engine.runtime",
    "engine.release",
    "engine.batching.max_queue_size",  # the python model's own queue
    "engine.batching.responses_per_core",
}
OTHER_VALUES: dict[str, Any] = {
    "engine.limits.max_batch_size": 32,
    "engine.limits.max_input_len": 100,
    "engine.limits.max_seq_len": 5000,
    "engine.limits.max_num_tokens": 3000,
    "engine.parallelism.tensor": 2,
    "engine.parallelism.pipeline": 2,
    "engine.kv_cache.size": "2GiB",
    "engine.kv_cache.host_offload": "1GiB",
    "engine.kv_cache.tokens_per_block": 64,
    "engine.kv_cache.free_memory_fraction": 0.5,
    "engine.batching.policy": "max_utilization",
    "engine.batching.chunking": "equal_progress",
    "engine.batching.queue_delay": "1ms",
    "engine.batching.queue_timeout": "1s",
    "engine.batching.stream_interval": 3,
    "engine.speculation": {"method": "ngram"},
    "engine.guided_decoding": "xgrammar",
    "engine.lora": {"adapters": {"sql": "./sql"}},
    "engine.cuda_graphs.enabled": False,
    "engine.cuda_graphs.batch_sizes": (1, 2),
    "engine.cuda_graphs.cache_size": 4,
    "engine.tensorrt.opt_num_tokens": 8,
    "engine.tensorrt.gemm_plugin": "auto",
    "engine.tensorrt.workers": 2,
    "engine.pytorch.overlap_scheduler": False,
    "engine.pytorch.attention_backend": "vanilla",
    "engine.pytorch.moe_backend": "TRTLLM",
    "engine.dtype": "float16",
    "engine.threads": 4,
}


def leaves(section: Any, above: str) -> list[str]:
    found = []
    for name, value in section:
        path = f"{above}.{name}"
        found += leaves(value, path) if hasattr(value, "model_fields_set") else [path]
    return found


LEAVES = [path for path in leaves(Engine(), "engine") if path not in NOT_FOR_THE_ENGINE]


def changed(path: str) -> dict[str, Any]:
    *sections, last = path.split(".")[1:]
    default: Any = Engine()
    for step in (*sections, last):
        default = getattr(default, step)
    engine: dict[str, Any] = {}
    below = engine
    for step in sections:
        below = below.setdefault(step, {})
    below[last] = not default if isinstance(default, bool) else OTHER_VALUES[path]
    return engine


@pytest.mark.parametrize("path", LEAVES)
def test_no_field_is_ignored_in_silence(path: str) -> None:
    engine = copy.deepcopy(changed(path))
    if path == "engine.batching.chunked_prefill":
        engine["limits"] = {"max_num_tokens": 4096}
        before = arguments({"limits": {"max_num_tokens": 4096}})
    else:
        before = arguments({})
    try:
        after = arguments(engine)
    except UnsupportedError as error:
        # Of two fields that clash the message may name the other one.
        assert (error.where or "").split(".")[:2] == path.split(".")[:2]  # noqa: PT017
    else:
        assert after != before


def test_requests_learn_what_they_may_ask() -> None:
    plain = request_limits(Engine())
    assert (plain.penalties, plain.guided, plain.adapters) == (True, False, ())
    full = request_limits(
        Engine.model_validate(
            {
                "speculation": {"method": "ngram"},
                "guided_decoding": "xgrammar",
                "lora": {"adapters": {"sql": "./sql", "chat": "./chat"}},
            }
        )
    )
    assert (full.penalties, full.guided, full.adapters) == (False, True, ("sql", "chat"))


def test_the_release_s_table_stays_as_it_is() -> None:
    before = default_release("pytorch").model_dump_json()
    arguments({"cuda_graphs": {"batch_sizes": (1, 2)}, "pytorch": {"torch_compile": True}})
    assert default_release("pytorch").model_dump_json() == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"max_batchsize": 4}, "max_batchsize is unknown"),
        ({"max_batch_size": "4"}, "max_batch_size has to be"),
        ({"max_batch_size": True}, "max_batch_size has to be"),
        ({"model": ...}, "model is missing"),
        ({"kv_cache_config": {"enable_block_reuse": 1}}, "kv_cache_config.enable_block_reuse"),
        ({"kv_cache_config": {"free_gpu_memory_fraction": 1.5}}, "1 or less"),
        ({"scheduler_config": {"capacity_scheduler_policy": "FAIR"}}, "is one of"),
        ({"speculative_config": {"decoding_type": "Eagle9"}}, "is none of"),
        ({"speculative_config": {"decoding_type": "NGram", "ngram": 2}}, "ngram is unknown"),
        ({"cuda_graph_config": {"padding": True}}, "cuda_graph_config.padding is unknown"),
    ],
)
def test_a_wrong_argument_is_found(change: dict[str, Any], problem: str) -> None:
    made = {**arguments({}), **change}
    made = {key: value for key, value in made.items() if value is not ...}
    found = list(argument_problems(made, default_release("pytorch")))
    assert len(found) == 1
    assert problem in found[0]
