"""What is known to differ between the releases does differ in their tables."""

from __future__ import annotations

from toolkit.releases import Field, known_releases, release

FIRST, SECOND, LAST_ENGINE = release("1.0.0"), release("1.1.0"), release("1.2.1")
LATE, NEWEST = release("1.3.0rc27"), release("1.4.0rc1")


def field(version: str, path: str, config: str | None = None) -> Field:
    return release(version).llm_args.field(path, config=config)


def test_the_engine_path_and_all_its_parts_end_with_1_2() -> None:
    for known in (FIRST, SECOND, LAST_ENGINE):
        assert known.runtimes == ("tensorrt", "pytorch")
        assert len(known.build_flags) > 60
        models = {model.model for model in known.triton_models if model.runtime == "tensorrt"}
        assert models == {
            "preprocessing",
            "tensorrt_llm",
            "postprocessing",
            "tensorrt_llm_bls",
            "ensemble",
        }
    for known in (LATE, NEWEST):
        assert known.runtimes == ("pytorch",)
        assert not known.build_flags
        assert [model.name for model in known.triton_models] == ["pytorch.tensorrt_llm"]
        assert not any(term.build_flags or term.triton_parameters for term in known.terms)
        assert not any(family.name.startswith("nv_") for family in known.metrics)


def test_images_end_with_1_2_and_need_newer_drivers_from_cuda_13_on() -> None:
    tags = {
        known.version: [image.triton for image in known.containers] for known in known_releases()
    }
    assert "26.07" in tags["1.2.1"]
    assert "25.10" in tags["1.0.0"]
    assert not tags["1.3.0rc27"]
    assert not tags["1.4.0rc1"]
    for known in known_releases():
        for image in known.containers:
            assert (image.driver_minimum >= 580) == (int(image.cuda.split(".")[0]) >= 13)


def test_automatic_parallelism_left_trtllm_build_after_1_1() -> None:
    for name in ("auto_parallel", "gpus_per_node", "cluster_key"):
        assert SECOND.build_flag(name).group == "auto_parallel"
        assert name not in {flag.name for flag in LAST_ENGINE.build_flags}
    kept = {flag.name for flag in FIRST.build_flags} - {
        flag.name for flag in LAST_ENGINE.build_flags
    }
    assert kept == {"auto_parallel", "gpus_per_node", "cluster_key"}


def test_the_two_model_method_is_spelled_anew_from_1_3_on() -> None:
    for known in (FIRST, SECOND, LAST_ENGINE):
        assert known.speculation("draft_model").decoding_type == "DraftTarget"
        assert known.speculation("eagle3").decoding_type == "Eagle"
    for known in (LATE, NEWEST):
        assert known.speculation("draft_model").decoding_type == "Draft_Target"
        assert known.speculation("eagle3").decoding_type == "Eagle3"


def test_the_draft_model_is_named_by_another_key_from_1_2_on() -> None:
    assert FIRST.speculation("draft_model").terms["draft"] == "speculative_model_dir"
    assert SECOND.speculation("draft_model").terms["draft"] == "speculative_model_dir"
    for known in (LAST_ENGINE, LATE):
        assert known.speculation("draft_model").terms["draft"] == "speculative_model"
        config = known.llm_args.config_class("DraftTargetDecodingConfig")
        assert config.by_name["speculative_model_dir"].name == "speculative_model"


def test_pausing_speculation_under_load_came_with_1_1() -> None:
    assert "max_concurrency" not in FIRST.speculation("ngram").terms
    assert SECOND.speculation("ngram").terms["max_concurrency"] == "max_concurrency"
    assert not FIRST.llm_args.has(
        "speculative_config.max_concurrency", config="NGramDecodingConfig"
    )


def test_n_gram_search_has_a_default_from_1_3_on() -> None:
    path, config = "speculative_config.max_matching_ngram_size", "NGramDecodingConfig"
    assert [field(v, path, config).default for v in ("1.0.0", "1.2.1", "1.3.0rc27")] == [0, 0, 2]


def test_the_kv_cache_section_grew_and_shrank() -> None:
    assert not FIRST.llm_args.has("kv_cache_config.tokens_per_block")
    assert not FIRST.term("engine.kv_cache.tokens_per_block").llm_args
    assert SECOND.llm_args.has("kv_cache_config.tokens_per_block")
    assert FIRST.term("engine.kv_cache.size").llm_args == ("kv_cache_config.max_tokens",)
    assert SECOND.term("engine.kv_cache.size").llm_args == ("kv_cache_config.max_gpu_total_bytes",)
    assert LAST_ENGINE.llm_args.has("kv_cache_config.onboard_blocks")
    assert not LATE.llm_args.has("kv_cache_config.onboard_blocks")
    fractions = [
        field(version, "kv_cache_config.free_gpu_memory_fraction").default
        for version in ("1.0.0", "1.1.0", "1.2.1", "1.3.0rc27")
    ]
    assert fractions == [None, None, 0.9, 0.9]


def test_tokens_of_a_step_have_a_default_from_1_2_on() -> None:
    defaults = [field(version, "max_num_tokens").default for version in ("1.0.0", "1.1.0", "1.2.1")]
    assert defaults == [None, None, 8192]


def test_the_sampler_is_no_longer_chosen_in_1_3() -> None:
    assert LAST_ENGINE.llm_args.has("sampler_type")
    assert not LATE.llm_args.has("sampler_type")


def test_waiting_for_a_fuller_batch_came_with_1_1() -> None:
    assert not FIRST.llm_args.has("batch_wait_timeout_ms")
    assert "engine.batching.queue_delay" not in {term.name for term in FIRST.terms}
    assert SECOND.term("engine.batching.queue_delay").llm_args == ("batch_wait_timeout_ms",)


def test_four_bit_kv_caches_came_with_1_2() -> None:
    for known, works in ((FIRST, False), (SECOND, False), (LAST_ENGINE, True), (LATE, True)):
        found = known.supports(
            weights="fp8", kv="nvfp4", compute_capability=(10, 0), runtime="pytorch"
        )
        assert found.ok is works, known.version


def test_thinking_tokens_were_in_capitals_before_1_2() -> None:
    for known, name in (
        (SECOND, "BEGIN_THINKING_PHASE_TOKEN"),
        (LAST_ENGINE, "begin_thinking_phase_token"),
    ):
        assert known.llm_args.has(f"speculative_config.{name}", config="MTPDecodingConfig")


def test_performance_metrics_of_a_request_came_to_the_llm_api_model_with_1_1() -> None:
    names = [
        {tensor.name for tensor in known.triton_model("tensorrt_llm", "pytorch").inputs}
        for known in (FIRST, SECOND)
    ]
    assert names[1] - names[0] == {"sampling_param_return_perf_metrics"}


def test_only_the_engine_path_has_smoothquant() -> None:
    data_centre_blackwell = 10
    for known in known_releases():
        for row in known.formats:
            engine = row.runtime == "tensorrt" and row.capability[0] != data_centre_blackwell
            assert ("int8_sq" in row.weights) == engine, row.name
