"""The contracts say whose name a tensor bears: it is what that model of NVIDIA's has."""

from __future__ import annotations

import pytest

from toolkit.releases import Release, Tensor, newest, release
from toolkit.repository.contract import Contract, Direction, TensorContract, load_contract
from toolkit.repository.nvidia.features import feature_inputs

ENGINE = newest("tensorrt")
PUBLIC, LLM_API = load_contract("public"), load_contract("llmapi")
DIRECTIONS: tuple[Direction, ...] = ("input", "output")

OLDER_NAMES = {"min_length": "min_tokens", "random_seed": "seed"}
NOT_NEEDED_HERE = {"max_tokens"}
"""Inputs that NVIDIA's ensemble insists on and ours has a default for."""

OURS = {
    "input": {
        "priority": "TYPE_INT32",
        "deadline_ms": "TYPE_INT32",
        "add_special_tokens": "TYPE_BOOL",
        "skip_special_tokens": "TYPE_BOOL",
    },
    "output": {
        "finish_reason": "TYPE_STRING",
        "stop_reason": "TYPE_STRING",
        "num_cached_tokens": "TYPE_INT32",
        "num_preemptions": "TYPE_INT32",
        "kv_cache_missed_blocks": "TYPE_INT32",
        "kv_cache_hit_rate": "TYPE_FP32",
    },
}
"""What no model of NVIDIA's engine path has; clients know it by these names."""

ORDINARY = {
    "streaming": "stream",
    "best_of": "num_return_sequences",
    "stop_words": "stop_words",
    "exclude_input_from_output": "exclude_input_in_output",
    "return_cumulative_logprob": "return_log_probs",
    "cumulative_logprob": "cum_log_probs",
    "kv_cache_reused_block": "kv_cache_reused_blocks",
    "kv_cache_missed_block": "kv_cache_missed_blocks",
}
"""What the LLM API model's tensors are called by the public contract, where it is another word."""


def tensor_of(known: Release, model: str, name: str, direction: Direction) -> Tensor:
    runtime = "pytorch" if model == "llmapi" else "tensorrt"
    name_of = {"bls": "tensorrt_llm_bls", "ensemble": "ensemble", "llmapi": "tensorrt_llm"}
    return known.triton_model(name_of.get(model, model), runtime).tensor(name, direction)


def shape(tensor: Tensor | TensorContract) -> tuple[str, tuple[int, ...]]:
    return tensor.dtype, tensor.dims


def named(contract: Contract, direction: Direction) -> dict[str, TensorContract]:
    found = {tensor.name: tensor for tensor in contract.tensors(direction)}
    assert len(found) == len(contract.tensors(direction)), "a name stands twice"
    return found


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_bears_nvidias_name_has_nvidias_type_and_shape(direction: Direction) -> None:
    for name, tensor in named(PUBLIC, direction).items():
        if tensor.origin == "toolkit":
            continue
        origin, _, until = tensor.origin.partition(" up to ")
        assert bool(until) == (name in OLDER_NAMES), name
        theirs = tensor_of(ENGINE, origin, OLDER_NAMES.get(name, name), direction)
        assert shape(tensor) == shape(theirs), name
        if direction == "input":
            assert tensor.optional == (theirs.optional or name in NOT_NEEDED_HERE), name


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_our_own_names_are_a_promise(direction: Direction) -> None:
    own = {n: t for n, t in named(PUBLIC, direction).items() if t.origin == "toolkit"}
    assert {name: tensor.dtype for name, tensor in own.items()} == OURS[direction]
    assert all(tensor.dims == (1,) and tensor.optional for tensor in own.values())


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_alias_has_the_tensors_of_the_llm_api_model(direction: Direction) -> None:
    model = ENGINE.triton_model("tensorrt_llm", "pytorch")
    theirs = {t.name: t for t in (model.inputs if direction == "input" else model.outputs)}
    ours = named(LLM_API, direction)
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert shape(tensor) == shape(theirs[name]), name
        assert tensor.origin == "llmapi", name
        if direction == "input":
            assert tensor.optional == theirs[name].optional, name


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_alias_hands_each_tensor_to_the_one_that_means_it(direction: Direction) -> None:
    public = named(PUBLIC, direction)
    for name, tensor in named(LLM_API, direction).items():
        word = "stop_words" if name == "sampling_param_stop" else name
        word = word.removeprefix("sampling_param_")
        assert tensor.maps_to == ORDINARY.get(word, word)
        assert tensor.dtype == public[tensor.maps_to].dtype, name


def test_what_every_answer_brings_is_told_from_what_may_be_missing() -> None:
    for contract in (PUBLIC, LLM_API):
        assert [t.name for t in contract.outputs if not t.optional] == ["text_output"]
    assert [t.name for t in PUBLIC.inputs if not t.optional] == ["text_input"]


def test_both_models_answer_bit_by_bit_and_batch_as_nvidias_do() -> None:
    for name, contract, batch in (("public", PUBLIC, 1), ("llmapi", LLM_API, 0)):
        assert (contract.name, contract.max_batch_size, contract.decoupled) == (name, batch, True)
        assert contract.sources


def test_inputs_of_features_are_nvidias_too() -> None:
    newest_api = newest("pytorch", candidates=True)
    found = feature_inputs()
    assert {feature: [t.name for t in tensors] for feature, tensors in found.items()} == {
        "lora": ["lora_name"],
        "guided_decoding": ["guided_decoding_guide_type", "guided_decoding_guide"],
        "drafts": ["num_draft_tokens"],
    }
    for tensors in found.values():
        for tensor in tensors:
            known = newest_api if tensor.origin == "llmapi" else release("1.2.1")
            theirs = tensor_of(known, tensor.origin, tensor.name, "input")
            assert (*shape(tensor), tensor.optional) == (*shape(theirs), theirs.optional)
