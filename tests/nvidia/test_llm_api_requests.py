"""Requests in the LLM API's words, what it gives back, and which GPUs an instance has."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llm_api.devices import restrict
from llm_api.load import read_arguments, with_smaller_cache
from llm_api.output import Progress
from llm_api.sampling import RequestWriter
from llm_api.settings import LlmApiSettings
from llm_api.statistics import Statistics
from llm_serving.engine_api import GenerationRequest, Guide, RequestRefusedError, Sampling
from llm_serving.tokenizer import TextTokenizer
from miniature import write_checkpoint

BASE = {"runtime": "pytorch", "release": "1.2.1", "max_batch_size": 4, "max_queue_size": 4}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer(write_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture
def writer(tokenizer: TextTokenizer) -> RequestWriter:
    settings = LlmApiSettings.from_mapping(
        {**BASE, "guided_decoding": True, "adapters": [["sql", "a/sql"], ["art", "a/art"]]}
    )
    return RequestWriter(settings, Path("/m/1"), tokenizer)


def sampled(writer: RequestWriter, **given: Any) -> dict[str, Any]:
    sampling = Sampling(**{"max_tokens": 5, "stop_token_ids": (0,), **given})
    return writer.call(GenerationRequest(1, (1, 2), sampling)).sampling


def test_greedy_says_nothing_about_drawing(writer: RequestWriter) -> None:
    found = sampled(writer)
    assert found == {
        "max_tokens": 5,
        "detokenize": False,
        "return_perf_metrics": True,
        "end_id": 0,
        "pad_id": 0,
    }


def test_drawing_always_has_top_p_and_a_seed(writer: RequestWriter) -> None:
    found = sampled(writer, temperature=0.7, top_k=5, top_p=0.9, seed=3)
    assert {key: found[key] for key in ("temperature", "top_k", "top_p", "seed")} == {
        "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 3,
    }  # fmt: skip
    seeds = {sampled(writer, temperature=1.0)["seed"] for _ in range(4)}
    assert len(seeds) == 4
    assert "top_k" not in sampled(writer, temperature=1.0)


def test_end_tokens(writer: RequestWriter) -> None:
    several = sampled(writer, stop_token_ids=(7, 8, 9))
    assert (several["end_id"], several["stop_token_ids"]) == (7, [8, 9])
    none = sampled(writer, stop_token_ids=())
    assert (none["end_id"], none["ignore_eos"]) == (-1, True)


def test_bad_words_of_one_token_are_ids_and_of_several_are_text(
    writer: RequestWriter, tokenizer: TextTokenizer
) -> None:
    long = tokenizer.encode("quick brown zebra", special=False)
    found = sampled(writer, bad_words=((5,), long))
    assert found["bad_token_ids"] == [5]
    assert found["bad"] == ["quick brown zebra"]
    # Text is read only where the API chooses the end token; ours stops instead.
    assert "end_id" not in found
    assert (found["ignore_eos"], found["stop_token_ids"]) == (True, [0])
    with pytest.raises(RequestRefusedError, match="min_tokens"):
        sampled(writer, bad_words=(long,), min_tokens=3)


def test_penalties_are_refused_beside_speculation(tokenizer: TextTokenizer) -> None:
    settings = LlmApiSettings.from_mapping({**BASE, "penalties": False})
    writer = RequestWriter(settings, Path("/m"), tokenizer)
    for name, value in (("repetition_penalty", 1.2), ("presence_penalty", 0.1),
                        ("frequency_penalty", 0.1)):  # fmt: skip
        with pytest.raises(RequestRefusedError, match=f"{name}: not together with specul"):
            sampled(writer, **{name: value})


def test_guides_and_adapters(writer: RequestWriter) -> None:
    guides = {
        Guide("json", ""): {"json_object": True},
        Guide("json_schema", "{}"): {"json": "{}"},
        Guide("regex", "a+"): {"regex": "a+"},
        Guide("ebnf_grammar", "root ::= 'a'"): {"grammar": "root ::= 'a'"},
    }
    for guide, wanted in guides.items():
        call = writer.call(GenerationRequest(1, (1,), Sampling(1), guide=guide))
        assert call.guide == wanted
    call = writer.call(GenerationRequest(1, (1,), Sampling(1), adapter="art"))
    assert call.adapter == ("art", 2, "/m/1/a/art")
    with pytest.raises(RequestRefusedError, match="'none' is none of sql, art"):
        writer.call(GenerationRequest(1, (1,), Sampling(1), adapter="none"))


def result(tokens: list[int], **given: Any) -> SimpleNamespace:
    output = SimpleNamespace(token_ids=tokens, finish_reason=None, logprobs=[])
    output.__dict__.update(given)
    return SimpleNamespace(outputs=[output], finished=output.finish_reason is not None)


def test_chunks_are_what_is_new(writer: RequestWriter) -> None:
    progress = Progress(GenerationRequest(1, (1,), Sampling(9, stop_token_ids=(0,))))
    first = progress.take(result([5, 6]))
    assert first is not None
    assert (first.tokens, first.finish) == ([5, 6], None)
    assert progress.take(result([5, 6])) is None
    last = progress.take(result([5, 6, 7, 0], finish_reason="stop"))
    assert last is not None
    assert (last.tokens, last.finish) == ([7], "stop")
    assert last.usage is not None
    assert last.usage.output_tokens == 3


def test_a_last_response_may_be_shorter_than_what_came_before() -> None:
    """Some releases take the stop token out again at the end."""
    progress = Progress(GenerationRequest(1, (1,), Sampling(9, stop_token_ids=(0,))))
    progress.take(result([5, 6]))
    last = progress.take(result([5], finish_reason="stop"))
    assert last is not None
    assert (last.tokens, last.finish) == ([], "stop")


@pytest.mark.parametrize("form", ["numbers", "objects"])
def test_log_probs_of_either_form(form: str) -> None:
    progress = Progress(GenerationRequest(1, (1,), Sampling(9, log_probs=True)))
    scores: list[Any] = [-0.5, -0.25]
    if form == "objects":
        scores = [{7: SimpleNamespace(logprob=-0.5), 3: SimpleNamespace(logprob=-9.0)},
                  {8: SimpleNamespace(logprob=-0.25)}]  # fmt: skip
    chunk = progress.take(result([7, 8], logprobs=scores, finish_reason="length"))
    assert chunk is not None
    assert chunk.log_probs == [-0.5, -0.25]


def test_performance_metrics_become_usage() -> None:
    metrics = SimpleNamespace(
        timing_metrics=SimpleNamespace(
            arrival_time=timedelta(seconds=10), first_scheduled_time=timedelta(seconds=11),
            first_token_time=timedelta(seconds=12), last_token_time=timedelta(seconds=13),
        ),
        kv_cache_metrics=SimpleNamespace(num_reused_blocks=3, num_missed_blocks=1),
        speculative_decoding=SimpleNamespace(
            total_draft_tokens=8, total_accepted_draft_tokens=5, acceptance_rate=0.625
        ),
    )  # fmt: skip
    progress = Progress(GenerationRequest(1, (1,), Sampling(9)))
    chunk = progress.take(result([7], finish_reason="length", request_perf_metrics=metrics))
    assert chunk is not None
    usage = chunk.usage
    assert usage is not None
    times = (usage.arrived, usage.first_scheduled, usage.first_token, usage.last_token)
    assert times == (10, 11, 12, 13)
    assert (usage.kv_blocks_reused, usage.kv_blocks_total) == (3, 4)
    assert (usage.draft_tokens, usage.accepted_draft_tokens) == (8, 5)


def test_statistics_sum_drafts_and_forget_requests_of_an_idle_engine() -> None:
    statistics = Statistics(max_batch_size=16)
    record = {
        "iter": 7,
        "numQueuedRequests": 2,
        "gpuMemUsage": 100,
        "kvCacheStats": {"maxNumBlocks": 50, "usedNumBlocks": 5, "freeNumBlocks": 45,
                         "tokensPerBlock": 32, "reusedBlocks": 6, "missedBlocks": 4},
        "inflightBatchingStats": {"numContextRequests": 1, "numGenRequests": 2, "numCtxTokens": 9},
        "specDecodingStats": {"numDraftTokens": 4, "numAcceptedTokens": 3},
    }  # fmt: skip
    statistics.take(record)
    statistics.take(record)
    busy = statistics.stats(inside=5, waiting=1)
    assert (busy.running, busy.waiting, busy.generation_requests) == (3, 3, 2)
    assert (busy.draft_tokens_total, busy.accepted_draft_tokens_total) == (8, 6)
    assert (busy.blocks_reused_total, busy.blocks_looked_up_total) == (6, 10)
    idle = statistics.stats(inside=0, waiting=0)
    assert (idle.running, idle.waiting, idle.generation_requests) == (0, 0, 0)
    assert (idle.blocks_max, idle.gpu_memory_bytes) == (50, 100)


def test_older_releases_leave_sections_out() -> None:
    statistics = Statistics(max_batch_size=16)
    statistics.take({"iter": 1, "kvCacheStats": None, "specDecodingStats": None})
    assert statistics.stats(inside=1, waiting=0).running == 1


@pytest.mark.parametrize(
    ("visible", "instance", "wanted"),
    [(None, "chat_0_0", "0,1"), (None, "chat_0_1", "2,3"), ("4,5,6,7", "chat_0_1", "6,7"),
     ("GPU-a,GPU-b,GPU-c,GPU-d", "chat_0_0", "GPU-a,GPU-b")],
)  # fmt: skip
def test_each_instance_sees_its_own_gpus(visible: str | None, instance: str, wanted: str) -> None:
    environment = {"OMPI_COMM_WORLD_RANK": "0", "PMIX_RANK": "0", "OMPI_MCA_btl_tcp": "1",
                   "PATH": "/bin"}  # fmt: skip
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    restrict(environment, [[0, 1], [2, 3]], instance)
    assert environment == {
        "CUDA_VISIBLE_DEVICES": wanted,
        "TRTLLM_VISIBLE_DEVICES": wanted,
        "OMPI_MCA_btl_tcp": "1",
        "PATH": "/bin",
    }


def test_an_instance_without_gpus_is_an_error() -> None:
    with pytest.raises(ValueError, match="instance 2 has no GPUs"):
        restrict({}, [[0], [1]], "chat_0_2")
    with pytest.raises(ValueError, match="GPU 1 is not among the 1 visible"):
        restrict({"CUDA_VISIBLE_DEVICES": "3"}, [[0], [1]], "chat_0_1")


@pytest.fixture
def version(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path


def test_paths_of_model_yaml_count_from_its_folder(version: Path) -> None:
    content = {"triton_config": {"decoupled": True}, "model": "./model", "dtype": "auto",
               "speculative_config": {"speculative_model": "./model"}}  # fmt: skip
    (version / "model.yaml").write_text(json.dumps(content))
    arguments = read_arguments(version)
    assert arguments["model"] == str(version / "model")
    assert arguments["speculative_config"]["speculative_model"] == str(version / "model")
    assert arguments["dtype"] == "auto"
    assert "triton_config" not in arguments
    (version / "model.yaml").write_text(json.dumps({"model": "./lost"}))
    with pytest.raises(ValueError, match="lost is not there"):
        read_arguments(version)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown engine settings: speed"):
        LlmApiSettings.from_mapping({**BASE, "speed": 9})


def test_a_smaller_cache_after_running_out_of_memory() -> None:
    cache = {"free_gpu_memory_fraction": 0.9, "max_gpu_total_bytes": 1001, "dtype": "fp8"}
    arguments = {"model": "/m", "kv_cache_config": cache}
    told = with_smaller_cache(arguments, 0.5)
    smaller = {"free_gpu_memory_fraction": 0.45, "max_gpu_total_bytes": 500, "dtype": "fp8"}
    assert told == {"model": "/m", "kv_cache_config": smaller}
    assert with_smaller_cache(arguments, 1.0) == arguments
    tokens = with_smaller_cache({"kv_cache_config": {"max_tokens": 640}}, 0.8)
    assert tokens == {"kv_cache_config": {"max_tokens": 512}}
    assert with_smaller_cache({"model": "/m"}, 0.5) == {"model": "/m"}
