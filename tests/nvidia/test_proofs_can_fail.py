# ruff: noqa: E501 - one case a line
"""Spoil one thing of a proved repository at a time: the static check has to name it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import golden
import pytest

from toolkit.repository.check import check_static

Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: golden.render_golden(name, tmp_path_factory.mktemp(name))
        for name in ("llama-8b-draft-1b-engine", "llama-8b-guided-engine", "llama-8b-lora-engine", "llama-8b-lora-h100",
                     "llama-8b-two-replicas", "llama-8b-two-replicas-engine")
    }  # fmt: skip


def replace(place: str, old: str, new: str) -> Spoil:
    def spoil(repository: Path) -> None:
        file = repository / place
        text = file.read_text()
        assert old in text, f"{place} has no {old!r}"
        file.write_text(text.replace(old, new, 1))

    return spoil


def drop(place: str, pattern: str) -> Spoil:
    def spoil(repository: Path) -> None:
        file = repository / place
        text, count = re.subn(pattern, "", file.read_text(), count=1, flags=re.MULTILINE)
        assert count, f"{place} has no {pattern!r}"
        file.write_text(text)

    return spoil


def engine(key: str, value: object, model: str = "tensorrt_llm") -> Spoil:
    """Change ``key``, a dotted name, in an engine's config.json."""

    def spoil(repository: Path) -> None:
        file = repository / model / "1/engine/config.json"
        content = json.loads(file.read_text())
        *sections, last = key.split(".")
        below = content
        for section in sections:
            below = below[section]
        below[last] = value
        file.unlink()  # a link to the built engine
        file.write_text(json.dumps(content))

    return spoil


def remove(place: str) -> Spoil:
    def spoil(repository: Path) -> None:
        path = repository / place
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    return spoil


def unbounded(repository: Path) -> None:
    """Two engines that each take most of what they find."""
    for model in ("tensorrt_llm", "tensorrt_llm_draft"):
        drop(f"{model}/config.pbtxt", r'^parameters .*"max_tokens_in_paged_kv_cache".*\n')(
            repository
        )


LORA_ENGINE = "llama-8b-lora-engine"
DRAFT, GUIDED = "llama-8b-draft-1b-engine", "llama-8b-guided-engine"
LORA, TWINS, TWIN_ENGINES = (
    "llama-8b-lora-h100", "llama-8b-two-replicas", "llama-8b-two-replicas-engine"
)  # fmt: skip
BACKEND = "tensorrt_llm/config.pbtxt"
YAML = "assistants/1/model.yaml"

CASES = [
    (DRAFT, replace(BACKEND, '"input_lengths" data_type: TYPE_INT32', '"input_lengths" data_type: TYPE_INT64'), "'input_lengths' is TYPE_INT64"),
    (DRAFT, replace(BACKEND, '"draft_input_ids"', '"draft_ids"'), "'draft_ids' is unknown"),
    (DRAFT, drop(BACKEND, r'^input .*"seed".*\n'), "input 'seed' is missing"),
    (DRAFT, drop(BACKEND, r'^output .*"sequence_length".*\n'), "output 'sequence_length' is missing"),
    (DRAFT, replace(BACKEND, " reshape: { shape: [ ] }", ""), "not reshaped to a scalar"),
    (DRAFT, replace(BACKEND, " allow_ragged_batch: true", ""), "allow_ragged_batch is False"),
    (DRAFT, replace(BACKEND, "dims: [1] reshape: { shape: [ ] } optional: true", "dims: [2] reshape: { shape: [ ] } optional: true"), "has dims [2]"),
    (DRAFT, replace(BACKEND, '"tensorrtllm"', '"onnxruntime"'), "backend is 'onnxruntime'"),
    (DRAFT, drop(BACKEND, r"^model_transaction_policy.*\n"), "is not decoupled"),
    (DRAFT, replace(BACKEND, "max_batch_size: 16", "max_batch_size: 0"), "max_batch_size is 0"),
    (DRAFT, replace(BACKEND, "max_batch_size: 16", "max_batch_size: 32"), "was built for 16 requests, not 32"),
    (DRAFT, replace(BACKEND, '"enable_kv_cache_reuse"', '"enable_kv_reuse"'), "parameter 'enable_kv_reuse' is unknown"),
    (DRAFT, replace(BACKEND, '"guaranteed_no_evict"', '"first_come"'), "'batch_scheduler_policy' is one of"),
    (DRAFT, replace(BACKEND, '"inflight_fused_batching"', '"V1"'), "'gpt_model_type' is one of"),
    (DRAFT, drop(BACKEND, r'^parameters .*"gpt_model_type".*\n'), "parameter 'gpt_model_type' is missing"),
    (DRAFT, drop(BACKEND, r'^parameters .*"FORCE_CPU_ONLY_INPUT_TENSORS".*\n'), "'FORCE_CPU_ONLY_INPUT_TENSORS' is missing"),
    (DRAFT, replace(BACKEND, '"no"', '"yes"'), "has to be 'no'"),
    (DRAFT, replace(BACKEND, '"0.9"', '"${kv_cache_free_gpu_mem_fraction}"'), "is not filled in"),
    (DRAFT, replace(BACKEND, '"0.9"', '""'), "is not filled in"),
    (DRAFT, unbounded, "of the free memory"),
    (DRAFT, replace(BACKEND, '"max_beam_width" value: { string_value: "1"', '"max_beam_width" value: { string_value: "4"'), "built for beam width 1"),
    (DRAFT, replace(BACKEND, "/models/tensorrt_llm/1/engine", "/models/other/1/engine"), "the engine lies elsewhere"),
    (DRAFT, replace(BACKEND, "default_priority_level: 1", "default_priority_level: 7"), "default_priority_level 7"),
    (DRAFT, replace(BACKEND, "preferred_batch_size: [ 16 ]", "preferred_batch_size: [ 64 ]"), "preferred_batch_size 64"),
    (DRAFT, replace(BACKEND, "max_queue_size: 256", "max_queue_size: 0"), "the queue has no bound"),
    (GUIDED, replace(BACKEND, "timeout_action: REJECT", "timeout_action: DELAY"), "put off, not refused"),
    (GUIDED, replace(BACKEND, '"655360"', '"4096"'), "holds no request of max_seq_len"),
    (GUIDED, replace(BACKEND, '"xgrammar"', '"outlines"'), "'guided_decoding_backend' is one of"),
    (GUIDED, remove("tensorrt_llm/1/xgrammar_tokenizer_info.json"), "xgrammar_tokenizer_info.json is not there"),
    (DRAFT, remove("tensorrt_llm_draft"), "the model is missing"),
    (DRAFT, remove("tensorrt_llm_bls"), "the model is missing"),
    (DRAFT, remove("tensorrt_llm/1/engine"), "is missing"),
    (DRAFT, remove("tensorrt_llm/1/engine/rank0.engine"), "rank0.engine is missing"),
    (DRAFT, engine("version", "1.1.0"), "was built by TensorRT-LLM 1.1.0"),
    (DRAFT, engine("build_config.kv_cache_type", "DISABLED"), "has a disabled KV cache"),
    (DRAFT, engine("build_config.plugin_config.use_paged_context_fmha", None), "paged context attention"),
    (DRAFT, engine("build_config.max_input_len", 128), "built for max_input_len 128"),
    (DRAFT, engine("build_config.max_seq_len", 128), "built for max_seq_len 128"),
    (DRAFT, engine("build_config.speculative_decoding_mode", 1), "not built to verify drafts"),
    (DRAFT, engine("build_config.max_draft_len", 2), "verifies 2 drafts at once"),
    (DRAFT, engine("pretrained_config.vocab_size", 32000, "tensorrt_llm_draft"), "the draft's vocabulary"),
    (TWIN_ENGINES, replace(BACKEND, '"0,1;2,3"', '"0,1"'), "2 instances for 1 lists of GPUs"),
    (TWIN_ENGINES, replace(BACKEND, '"0,1;2,3"', '"0,1;1,2"'), "instances share GPUs"),
    (TWIN_ENGINES, replace(BACKEND, '"0,1;2,3"', '"0;1"'), "was built for 2 GPUs"),
    (DRAFT, replace("ensemble/config.pbtxt", 'key: "runtime_top_k" value: "top_k"', 'key: "runtime_top_k" value: "beam_width"'), "'runtime_top_k' goes with 'beam_width'"),
    (DRAFT, replace("ensemble/config.pbtxt", 'model_name: "postprocessing"', 'model_name: "preprocessing"'), "has steps"),
    (DRAFT, replace("ensemble/config.pbtxt", '"seed" data_type: TYPE_UINT64', '"seed" data_type: TYPE_INT64'), "differ in data type"),
    (DRAFT, replace("ensemble/config.pbtxt", '"stream"', '"streams"'), "'streams' is unknown"),
    (DRAFT, replace("preprocessing/config.pbtxt", '"QUERY"', '"PROMPT"'), "'PROMPT' is unknown"),
    (DRAFT, replace("preprocessing/config.pbtxt", '"tokenizer_dir"', '"tokenizer"'), "parameter 'tokenizer' is unknown"),
    (DRAFT, replace("postprocessing/config.pbtxt", '"skip_special_tokens" value: { string_value: "true"', '"skip_special_tokens" value: { string_value: "yes"'), "true or false"),
    (DRAFT, replace("tensorrt_llm_bls/config.pbtxt", '"num_draft_tokens" data_type: TYPE_INT32', '"num_draft_tokens" data_type: TYPE_FP32'), "is TYPE_FP32"),
    (DRAFT, replace("quick-chat/config.pbtxt", '"deadline_ms"', '"deadline"'), "'deadline' is unknown"),
    (DRAFT, replace("quick-chat/config.pbtxt", "max_batch_size: 1", "max_batch_size: 8"), "clients expect 1"),
    (DRAFT, replace("quick-chat/1/settings.json", '"1.2.1"', '"9.9.9"'), "9.9.9"),
    (DRAFT, replace("quick-chat/1/settings.json", '"1.2.1"', '"1.3.0rc27"'), "has no tensorrt runtime"),
    (DRAFT, replace("quick-chat/1/adapter.py", "from pathlib import Path", "import torch\nfrom pathlib import Path"), "imports torch"),
    (DRAFT, remove("preprocessing/1/tokenizer"), "is missing"),
    (LORA, replace(YAML, "max_lora_rank:", "lora_rank:"), "lora_config.lora_rank is unknown"),
    (LORA, replace(YAML, "GUARANTEED_NO_EVICT", "GUARANTEED"), "capacity_scheduler_policy is one of"),
    (LORA, replace(YAML, "decoupled: true", "decoupled: false"), "is not that of config.pbtxt"),
    (LORA, replace(YAML, "  decoupled: true\n", ""), "triton_config.decoupled is missing"),
    (LORA, replace(YAML, "max_batch_size: 0", "max_batch: 0"), "triton_config.max_batch is unknown"),
    (LORA, replace(YAML, "./adapters/sql", "./adapters/lost"), "./adapters/lost is not there"),
    (LORA, replace(YAML, "./model", "{{ model }}"), "was not filled in"),
    (LORA, replace(YAML, "max_num_tokens: 4096", "max_num_tokens: many"), "max_num_tokens has to be"),
    (LORA, remove(YAML), "cannot be read"),
    (LORA, replace("tensorrt_llm/config.pbtxt", '"lora_name"', '"lora"'), "'lora' is unknown"),
    (LORA, replace("assistants/config.pbtxt", '"lora_name" data_type: TYPE_STRING', '"lora_name" data_type: TYPE_INT32'), "'lora_name' is TYPE_INT32"),
    (LORA_ENGINE, remove("tensorrt_llm/1/adapters/1/model.lora_weights.npy"), "of adapter 'support' is missing"),
    (LORA_ENGINE, engine("build_config.lora_config.max_lora_rank", 4), "built for LoRA rank 4"),
    (TWINS, replace("twins/config.pbtxt", "count: 2", "count: 1"), "1 instances for 2 lists of GPUs"),
    (TWINS, replace("twins/config.pbtxt", '"0;1"', '"0;0"'), "gpu_device_ids is '0;0'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil", "message"), CASES, ids=[case[2] for case in CASES])
def test_spoiled(
    proved: dict[str, Path], tmp_path: Path, name: str, spoil: Spoil, message: str
) -> None:
    repository = Path(shutil.copytree(proved[name], tmp_path / "repository"))
    spoil(repository)
    found = [f"{each.where}: {each.message}" for each in check_static(repository)]
    assert any(message in each for each in found), found


def test_nothing_is_found_in_what_was_rendered(proved: dict[str, Path]) -> None:
    for repository in proved.values():
        assert check_static(repository) == []
