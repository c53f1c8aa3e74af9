"""Finding a release, and a name in it: what is not there is refused with the nearest name."""

from __future__ import annotations

import pytest

from toolkit.errors import SpecError, UnsupportedError
from toolkit.releases import default_release, known_versions, newest, release


def test_releases_are_known_oldest_first_and_loaded_once() -> None:
    versions = known_versions()
    assert versions.index("1.0.0") < versions.index("1.1.0") < versions.index("1.2.1")
    assert versions.index("1.3.0rc27") < versions.index("1.4.0rc1")
    assert release("1.2.1") is release("1.2.1")


def test_a_shortened_version_means_the_newest_that_begins_so() -> None:
    assert release("1.2").version == "1.2.1"
    assert release("1.0").version == "1.0.0"
    assert release("1.3").version == "1.3.0rc27"
    assert release("1").version == "1.2.1", "a stable one before a candidate"


@pytest.mark.parametrize("version", ["1.2.3", "1.20", "0.21.0", "2.0.0", "main", "1.2.1.", ""])
def test_an_unknown_version_is_a_mistake_in_the_file(version: str) -> None:
    with pytest.raises(SpecError) as caught:
        release(version)
    assert caught.value.where == "engine.release"
    assert "1.2.1" in str(caught.value.hint)


def test_the_nearest_versions_are_suggested() -> None:
    with pytest.raises(SpecError) as caught:
        release("1.3.0rc26")
    assert str(caught.value.hint).startswith("did you mean 1.3.0rc27")
    with pytest.raises(SpecError) as caught:
        release("1.2.1rc1", where="deploy.yaml:4:12")
    assert caught.value.where == "deploy.yaml:4:12"
    assert str(caught.value.hint).startswith("did you mean 1.2.1")


def test_the_engine_path_ends_where_its_newest_release_stands() -> None:
    assert newest("tensorrt").version == "1.2.1"
    assert newest("tensorrt", candidates=True).version == "1.2.1"
    assert newest("pytorch").version == "1.2.1"
    assert newest("pytorch", candidates=True).version == "1.4.0rc1"


def test_the_default_can_be_served_from_an_image() -> None:
    for runtime in ("tensorrt", "pytorch"):
        chosen = default_release(runtime)
        assert chosen.stable
        assert chosen.container is not None
        assert runtime in chosen.runtimes


def test_build_flags_are_found_by_name_and_alias() -> None:
    known = release("1.2.1")
    assert known.build_flag("max_batch_size").arguments(64) == ("--max_batch_size", "64")
    assert known.build_flag("max_decoder_seq_len").name == "max_seq_len"
    assert known.build_flag("dry_run").arguments(True) == ("--dry_run",)
    assert known.build_flag("dry_run").arguments(False) == ()
    modules = known.build_flag("lora_target_modules").arguments(["attn_q", "attn_v"])
    assert modules == ("--lora_target_modules", "attn_q", "attn_v")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("max_batch_size", "64"),
        ("max_batch_size", True),
        ("dry_run", 1),
        ("gemm_plugin", "int4"),
        ("reduce_fusion", True),
        ("lora_target_modules", "attn_q"),
        ("lora_target_modules", ["attn_q", "attention"]),
    ],
)
def test_a_value_of_another_kind_never_reaches_the_command_line(flag: str, value: object) -> None:
    with pytest.raises(UnsupportedError, match=f"--{flag}"):
        release("1.2.1").build_flag(flag).arguments(value)  # type: ignore[arg-type]


def test_a_mistyped_flag_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnsupportedError) as caught:
        release("1.2.1").build_flag("max_batchsize")
    assert caught.value.message == "TensorRT-LLM 1.2.1 has no trtllm-build flag max_batchsize"
    assert caught.value.hint == "did you mean max_batch_size?"


def test_llm_fields_are_found_by_path() -> None:
    api = release("1.2.1").llm_args
    assert api.field("kv_cache_config.enable_block_reuse").kind == "bool"
    assert api.field("speculative_config.max_draft_len", config="NGramDecodingConfig")
    assert api.has("max_batch_size")
    assert not api.has("kv_cache_config.block_reuse")
    with pytest.raises(UnsupportedError) as caught:
        api.field("kv_cache_config.enable_blok_reuse")
    assert caught.value.where == "model.yaml: kv_cache_config.enable_blok_reuse"
    assert caught.value.hint == "did you mean enable_block_reuse?"


def test_a_field_of_several_classes_needs_one_to_be_named() -> None:
    api = release("1.3.0rc27").llm_args
    with pytest.raises(UnsupportedError) as caught:
        api.field("speculative_config.max_draft_len")
    assert "name one of DraftTargetDecodingConfig" in str(caught.value.hint)
    assert api.field("cuda_graph_config.enable_padding"), "the class without a tag is meant"
    assert not api.has("cuda_graph_config.num_tokens")
    assert api.has("cuda_graph_config.num_tokens", config="EncodeCudaGraphConfig")
    with pytest.raises(UnsupportedError):
        api.field("max_batch_size.below_a_number")


def test_triton_parameters_are_found_by_name_and_by_template_variable() -> None:
    model = release("1.2.1").triton_model("tensorrt_llm")
    assert model.parameter("batching_strategy").name == "gpt_model_type"
    assert model.parameter("gpt_model_type").problem("inflight_fused_batching") is None
    assert model.parameter("gpt_model_type").problem("V1") is not None
    assert model.parameter("kv_cache_free_gpu_mem_fraction").problem("0.9") is None
    assert model.parameter("kv_cache_free_gpu_mem_fraction").problem("most") is not None
    with pytest.raises(UnsupportedError) as caught:
        model.parameter("enable_kv_reuse")
    assert caught.value.where == "tensorrt_llm/config.pbtxt"
    assert caught.value.hint == "did you mean enable_kv_cache_reuse?"


def test_tensors_are_found_by_direction() -> None:
    model = release("1.2.1").triton_model("tensorrt_llm")
    assert model.tensor("input_ids").dtype == "TYPE_INT32"
    assert model.tensor("output_ids", "output").dtype == "TYPE_INT32"
    with pytest.raises(UnsupportedError):
        model.tensor("output_ids")
    streaming = release("1.2.1").triton_model("tensorrt_llm", runtime="pytorch").tensor("streaming")
    assert streaming.optional
    assert streaming.dtype == "TYPE_BOOL"


def test_what_a_runtime_had_is_refused_where_the_runtime_is_gone() -> None:
    late = release("1.3.0rc27")
    for asked in (
        lambda: late.build_flag("max_batch_size"),
        lambda: late.triton_model("tensorrt_llm"),
        lambda: late.speculation("medusa", "tensorrt"),
    ):
        with pytest.raises(UnsupportedError, match="has no tensorrt runtime") as caught:
            asked()
        assert "engine.runtime: pytorch" in str(caught.value.hint)


def test_a_method_of_the_other_runtime_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnsupportedError) as caught:
        release("1.2.1").speculation("medusa", "pytorch")
    assert caught.value.where == "engine.speculation.method"
    assert "draft_model, ngram, eagle3, mtp" in str(caught.value.hint)


def test_metrics_are_found_by_name() -> None:
    family = release("1.2.1").metric("nv_trt_llm_kv_cache_block_metrics")
    assert family.label == "kv_cache_block_type"
    assert "used" in family.values
    with pytest.raises(UnsupportedError):
        release("1.4.0rc1").metric("nv_trt_llm_kv_cache_block_metrics")
