"""Command lines of trtllm-build and the model's parameters: complete and in the release's words."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest
from built_engine import flags_of
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from model_shapes import LLAMA_1B, LLAMA_8B
from nvidia_deployments import FORMATS, TENSORRT

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.tensorrt import (
    BuildPaths,
    Command,
    build_commands,
    check,
)
from toolkit.errors import UnsupportedError
from toolkit.releases import Release, known_releases, release
from toolkit.repository.nvidia.parameters import EnginePaths, KvDivision, engine_parameters
from toolkit.spec.gpus import Gpu, find_gpu
from toolkit.spec.models import Deployment

H100, A100 = find_gpu("H100"), find_gpu("A100-80")
RELEASES = [one for one in known_releases() if "tensorrt" in one.runtimes]
DRAFT = {"method": "draft_model", "draft": {"source": "./d"}, "max_draft_len": 3}
IN_FLIGHT = {
    "remove_input_padding": "enable",
    "kv_cache_type": "paged",
    "gpt_attention_plugin": "auto",
}


def deployment(engine: dict[str, Any], formats: tuple[str, str] = ("none", "none")) -> Deployment:
    world = engine.get("parallelism", {})
    gpus = world.get("tensor", 1) * world.get("pipeline", 1)
    return Deployment.model_validate(
        {
            "name": "chat",
            "model": {"source": "./m"},
            "quantization": {"weights": formats[0], "kv_cache": formats[1]},
            "engine": {"runtime": "tensorrt", **engine},
            "serving": {"gpus": tuple(range(gpus))},
        }
    )


def commands(
    engine: dict[str, Any],
    formats: tuple[str, str] = ("none", "none"),
    *,
    of: Release | None = None,
    gpu: Gpu = H100,
    draft: Architecture | None = None,
    paths: BuildPaths | None = None,
) -> list[Command]:
    made, chosen = deployment(engine, formats), of or release("1.2.1")
    resolved = check(made.engine, made.quantization, LLAMA_8B, chosen, gpu, draft=draft)
    return build_commands(made, LLAMA_8B, chosen, resolved=resolved, paths=paths)


def target(engine: dict[str, Any], *args: Any, **more: Any) -> dict[str, Any]:
    found = [one for one in commands(engine, *args, **more) if one.step == "target"]
    return flags_of(found[0])


@given(engine=TENSORRT, formats=FORMATS, of=st.sampled_from(RELEASES))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_flag_is_in_the_release_with_its_type(
    engine: dict[str, Any], formats: tuple[str, str], of: Release
) -> None:
    try:
        made = commands(engine, formats, of=of, draft=LLAMA_1B if "speculation" in engine else None)
    except UnsupportedError:
        assume(False)
    drafted = engine.get("speculation", {}).get("method") == "draft_model"
    adapters = len(engine["lora"]["adapters"]) if "lora" in engine else 0
    steps = ["adapter"] * adapters + ["target"] + (["draft"] if drafted else [])
    assert [one.step for one in made] == steps
    for command in made[adapters:]:
        assert command.argv[0] == "trtllm-build"
        flags = flags_of(command)
        for name, text in flags.items():
            assert_takes(of, name, text)
            for clash in of.build_flag(name).clashes_with:
                other, _, value = clash.partition("=")
                clashing = other in flags and (not value or flags[other] == value)
                assert not clashing or (name == "multiple_profiles" and text == "disable")
        assert {name: flags.get(name) for name in IN_FLIGHT} == IN_FLIGHT
        assert flags["checkpoint_dir"] in command.inputs
        assert flags["output_dir"] == command.output
        for name, value in engine["limits"].items():
            assert flags[name] == str(value)


def assert_takes(of: Release, name: str, text: Any) -> None:
    flag = of.build_flag(name)
    if flag.kind == "bool":
        assert text is True
    elif flag.kind == "int":
        assert flag.problem(int(text)) is None
    elif flag.kind == "texts":
        assert flag.problem([text] if isinstance(text, str) else text) is None
    else:
        assert flag.problem(text) is None, f"{flag.option} {text}"


@pytest.mark.parametrize("of", RELEASES, ids=lambda one: one.version)
def test_a_draft_model_makes_two_engines(of: Release) -> None:
    paths = BuildPaths(
        checkpoint="/c/t", engine="/e/t", draft_checkpoint="/c/d", draft_engine="/e/d"
    )
    made = commands({"speculation": DRAFT}, of=of, draft=LLAMA_1B, paths=paths)
    big, small = (flags_of(one) for one in made)
    assert (big["speculative_decoding_mode"], big["max_draft_len"]) == (
        "draft_tokens_external",
        "3",
    )
    assert "speculative_decoding_mode" not in small
    assert "max_draft_len" not in small
    # Both verify and draft over blocks that are shared with earlier requests.
    assert big["use_paged_context_fmha"] == small["use_paged_context_fmha"] == "enable"
    assert (big["checkpoint_dir"], big["output_dir"]) == ("/c/t", "/e/t")
    assert (small["checkpoint_dir"], small["output_dir"]) == ("/c/d", "/e/d")
    for name in ("max_batch_size", "max_input_len", "max_seq_len", "max_beam_width"):
        assert big[name] == small[name]


@pytest.mark.parametrize(
    ("formats", "gpu", "wanted"),
    [
        (("none", "none"), H100, {"gemm_plugin": "auto", "use_fp8_context_fmha": "disable"}),
        (("int4_awq", "none"), A100, {"gemm_plugin": "auto", "use_fp8_context_fmha": "disable"}),
        (("fp8", "fp8"), H100, {"gemm_plugin": "disable", "use_fp8_context_fmha": "enable"}),
        (("fp8", "none"), H100, {"gemm_plugin": "disable", "use_fp8_context_fmha": "disable"}),
        (("nvfp4", "fp8"), find_gpu("B200"), {"gemm_plugin": "nvfp4"}),
    ],
)
def test_kernels_follow_the_format(
    formats: tuple[str, str], gpu: Gpu, wanted: dict[str, str]
) -> None:
    flags = target({}, formats, gpu=gpu)
    assert {name: flags[name] for name in wanted} == wanted
    assert flags["use_paged_context_fmha"] == "enable"


def test_an_int8_cache_goes_without_paged_context_attention() -> None:
    engine = {
        "kv_cache": {"reuse": False},
        "batching": {"chunked_prefill": False},
        "limits": {"max_num_tokens": 4096},
    }
    flags = target(engine, ("int8_sq", "int8"))
    assert flags["use_paged_context_fmha"] == "disable"


@pytest.mark.parametrize(
    ("engine", "wanted"),
    [
        ({"tensorrt": {"opt_num_tokens": 32}}, {"opt_num_tokens": "32"}),
        ({"tensorrt": {"multiple_profiles": True}}, {"multiple_profiles": "enable"}),
        ({"tensorrt": {"gather_context_logits": True}}, {"gather_context_logits": True}),
        ({"tensorrt": {"gemm_plugin": "disable"}}, {"gemm_plugin": "disable"}),
        ({"tensorrt": {"workers": 2}}, {"workers": "2"}),
        ({"parallelism": {"tensor": 4, "pipeline": 2}}, {"workers": "8"}),
        (
            {"parallelism": {"tensor": 2}, "tensorrt": {"reduce_fusion": True}},
            {"reduce_fusion": "enable"},
        ),
        ({"kv_cache": {"tokens_per_block": 64}}, {"tokens_per_block": "64"}),
        (
            {"lora": {"adapters": {"sql": "./s"}, "max_rank": 8, "target_modules": ("attn_q",)}},
            {"lora_plugin": "auto", "max_lora_rank": "8", "lora_target_modules": "attn_q"},
        ),
        (
            {
                "speculation": {
                    "method": "lookahead",
                    "window_size": 7,
                    "ngram_size": 7,
                    "verification_set_size": 7,
                },
                "limits": {"max_batch_size": 8},
            },
            {"speculative_decoding_mode": "lookahead_decoding", "max_draft_len": "83"},
        ),
    ],
)
def test_fields_become_flags(engine: dict[str, Any], wanted: dict[str, Any]) -> None:
    flags = target(engine)
    assert {name: flags.get(name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("medusa", {"medusa_model_dir": "heads", "num_medusa_heads": "4"}),
        ("eagle", {"eagle_model_dir": "heads", "num_eagle_layers": "4", "max_draft_len": "63"}),
    ],
)
def test_heads_are_converted_with_their_target(method: str, options: dict[str, str]) -> None:
    engine = {
        "speculation": {"method": method, "source": "./h"},
        "limits": {"max_batch_size": 8},
        "parallelism": {"tensor": 2},
    }
    convert, build = commands(engine)
    assert (convert.step, build.step) == ("convert", "target")
    assert convert.argv[:2] == ("python3", f"/app/examples/{method}/convert_checkpoint.py")
    words = dict(zip(convert.argv[2::2], convert.argv[3::2], strict=True))
    assert {name: words[f"--{name}"] for name in options} == options
    assert (words["--tp_size"], words["--dtype"]) == ("2", "bfloat16")
    assert convert.output in build.inputs
    assert flags_of(build)["max_draft_len"] == "63"


def test_adapters_become_what_the_server_reads() -> None:
    adapters = {"sql": "./s", "chat": "hf://a/chat@main"}
    first, second, _ = commands({"lora": {"adapters": adapters}})
    for number, (name, one) in enumerate((("sql", first), ("chat", second))):
        assert one.argv[:2] == ("python3", "/app/examples/hf_lora_convert.py")
        words = dict(zip(one.argv[2::2], one.argv[3::2], strict=True))
        assert words == {
            "--in-file": f"adapters/{name}",
            "--out-dir": f"engines/adapters/{number}",
            "--storage-type": "bfloat16",
        }
        assert (one.inputs, one.output) == ((f"adapters/{name}",), f"engines/adapters/{number}")
    none = commands({"lora": {"adapters": adapters}}, paths=BuildPaths(adapters={}))
    assert [one.step for one in none] == ["target"]


PATHS = EnginePaths(*map(PurePosixPath, ("/e", "/e/adapters", "/e/tokenizer.json")))


def parameters(engine: dict[str, Any], of: Release | None = None, **more: Any) -> dict[str, str]:
    made, chosen = deployment(engine), of or release("1.2.1")
    resolved = check(made.engine, made.quantization, LLAMA_8B, chosen, H100)
    return dict(engine_parameters(made, LLAMA_8B, chosen, resolved, PATHS, **more))


@given(engine=TENSORRT, of=st.sampled_from(RELEASES))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_every_parameter_is_in_the_release_with_its_type(
    engine: dict[str, Any], of: Release
) -> None:
    try:
        made = parameters(engine, of)
    except UnsupportedError:
        assume(False)
    model = of.triton_model("tensorrt_llm")
    for name, text in made.items():
        assert model.parameter(name).problem(text) is None
    assert {one.name for one in model.parameters if one.required} <= set(made)
    assert {one.name: one.fixed for one in model.parameters if one.fixed} == {
        one.name: made[one.name] for one in model.parameters if one.fixed
    }
    assert made["gpt_model_type"] == "inflight_fused_batching"
    assert made["gpt_model_path"] == "/e"


@pytest.mark.parametrize(
    ("engine", "wanted"),
    [
        ({}, {"enable_kv_cache_reuse": "true", "enable_chunked_context": "true",
              "batch_scheduler_policy": "guaranteed_no_evict",
              "kv_cache_free_gpu_mem_fraction": "0.9"}),
        ({"kv_cache": {"reuse": False}}, {"enable_kv_cache_reuse": "false"}),
        ({"kv_cache": {"size": "2GiB"}}, {"max_tokens_in_paged_kv_cache": "16384"}),
        ({"kv_cache": {"host_offload": "1GiB"}}, {"kv_cache_host_memory_bytes": str(2**30)}),
        ({"batching": {"policy": "max_utilization"}},
         {"batch_scheduler_policy": "max_utilization"}),
        ({"cuda_graphs": {"enabled": True, "cache_size": 8}},
         {"cuda_graph_mode": "true", "cuda_graph_cache_size": "8"}),
        ({"guided_decoding": "xgrammar"}, {"guided_decoding_backend": "xgrammar"}),
        ({"lora": {"adapters": {"sql": "./s"}, "max_rank": 8}},
         {"lora_cache_max_adapter_size": "8"}),
        ({"speculation": {"method": "lookahead"}, "limits": {"max_batch_size": 8}},
         {"decoding_mode": "lookahead", "lookahead_window_size": "4",
          "lookahead_ngram_size": "3", "lookahead_verification_set_size": "4"}),
        ({"speculation": {"method": "medusa", "source": "./m", "choices": ("0", "0,0")},
          "limits": {"max_batch_size": 8}},
         {"decoding_mode": "medusa", "medusa_choices": "{0},{0,0}"}),
        ({"speculation": {"method": "eagle", "source": "./e", "num_layers": 2,
                          "choices": ("0", "0,0", "1")}, "limits": {"max_batch_size": 8}},
         {"decoding_mode": "eagle", "eagle_choices": "{0},{0,0},{1}"}),
    ],
)  # fmt: skip
def test_fields_become_parameters(engine: dict[str, Any], wanted: dict[str, str]) -> None:
    made = parameters(engine)
    assert {name: made.get(name) for name in wanted} == wanted


def test_two_engines_on_a_gpu_are_told_their_share() -> None:
    for role in ("target", "draft"):
        division = KvDivision(draft_share=0.25, tokens=65536)
        made = parameters({"speculation": DRAFT}, role=role, division=division)
        assert made["max_tokens_in_paged_kv_cache"] == "65536"
        # Each finds less free than the plan did, and is bounded by its tokens.
        assert made["kv_cache_free_gpu_mem_fraction"] == "0.9"
        assert "decoding_mode" not in made


def test_where_no_gpu_is_known_two_engines_divide_what_is_free() -> None:
    kv_cache = {"host_offload": "1GiB", "free_memory_fraction": 0.8}
    engine = {"speculation": DRAFT, "kv_cache": kv_cache}
    for role, fraction, share in (("target", "0.6", 0.75), ("draft", "0.2", 0.25)):
        made = parameters(engine, role=role, division=KvDivision(draft_share=0.25))
        assert made["kv_cache_free_gpu_mem_fraction"] == fraction
        assert made["kv_cache_host_memory_bytes"] == str(int(2**30 * share))
        assert "max_tokens_in_paged_kv_cache" not in made


def test_a_size_of_both_caches_is_divided_by_bytes_and_counted_in_the_same_tokens() -> None:
    engine = {"speculation": DRAFT, "kv_cache": {"size": "4GiB"}}
    told = {
        parameters(engine, role=role, division=KvDivision(draft_share=0.25))[
            "max_tokens_in_paged_kv_cache"
        ]
        for role in ("target", "draft")
    }
    # 128 KiB of the target's and a third of that of the draft's for each token.
    assert told == {str(3 * 2**30 // (128 * 1024))}
