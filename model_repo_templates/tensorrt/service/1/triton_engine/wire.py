"""A request as the backend's tensors, and the backend's answer back.

Scalars have shape [1, 1]: a batch of one. ``bad_words_list`` is [1, 2, n]: the words' tokens one
after another, and where each word ends, padded with -1.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from llm_serving.engine_api import GenerationRequest, Sampling, Usage
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_NANOSECONDS = 1_000_000_000
_NO_END = -1

OUTPUTS = ("output_ids", "sequence_length")
LOG_PROBS = ("output_log_probs",)
PERF_METRICS = (
    "kv_cache_alloc_new_blocks",
    "kv_cache_reused_blocks",
    "arrival_time_ns",
    "first_scheduled_time_ns",
    "first_token_time_ns",
    "last_token_time_ns",
    "total_accepted_draft_tokens",
    "total_draft_tokens",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One response: new tokens of one beam, their log probabilities if asked for."""

    tokens: list[int]
    log_probs: list[float] = field(default_factory=list)
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def inputs(
    request: GenerationRequest,
    tokens: Sequence[int],
    output_len: int,
    *,
    streaming: bool,
    task_id: int | None = None,
) -> Arrays:
    """The tensors that ask for ``output_len`` tokens after ``tokens``."""
    sampling = request.sampling
    ends = sampling.stop_token_ids
    arrays: Arrays = {
        "input_ids": np.array([tokens], np.int32),
        "input_lengths": _one(len(tokens), np.int32),
        "request_output_len": _one(output_len, np.int32),
        "end_id": _one(ends[0] if ends else _NO_END, np.int32),
        "pad_id": _one(ends[0] if ends else 0, np.int32),
        "streaming": _one(streaming, np.bool_),
        "exclude_input_in_output": _one(True, np.bool_),
    }
    if ends[1:]:
        arrays["stop_words_list"] = word_list([(token,) for token in ends[1:]])
    if sampling.bad_words:
        arrays["bad_words_list"] = word_list(sampling.bad_words)
    if sampling.log_probs:
        arrays["return_log_probs"] = _one(True, np.bool_)
    if task_id is not None:
        arrays["lora_task_id"] = _one(task_id, np.uint64)
    if request.guide is not None:
        arrays["guided_decoding_guide_type"] = _text(request.guide.kind)
        if request.guide.text:
            arrays["guided_decoding_guide"] = _text(request.guide.text)
    return arrays | choice(sampling)


def choice(sampling: Sampling) -> Arrays:
    """How the next token is drawn; nothing said is greedy."""
    arrays: Arrays = {}
    if sampling.temperature > 0:
        arrays["temperature"] = _one(sampling.temperature, np.float32)
        arrays["runtime_top_p"] = _one(sampling.top_p, np.float32)
        if sampling.top_k:
            arrays["runtime_top_k"] = _one(sampling.top_k, np.int32)
        # Without a seed every request would draw the same numbers.
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        arrays["seed"] = _one(seed, np.uint64)
    elif sampling.log_probs:
        # Log probabilities are computed where tokens are sampled: sample from the best one.
        arrays["runtime_top_k"] = _one(1, np.int32)
    if sampling.min_tokens:
        arrays["min_tokens"] = _one(sampling.min_tokens, np.int32)
    if sampling.repetition_penalty != 1:
        arrays["repetition_penalty"] = _one(sampling.repetition_penalty, np.float32)
    if sampling.presence_penalty:
        arrays["presence_penalty"] = _one(sampling.presence_penalty, np.float32)
    if sampling.frequency_penalty:
        arrays["frequency_penalty"] = _one(sampling.frequency_penalty, np.float32)
    return arrays


def stop_inputs() -> Arrays:
    """The tensors that cancel the request with the same id; those that must be there are empty."""
    return {
        "input_ids": np.zeros((1, 1), np.int32),
        "input_lengths": _one(0, np.int32),
        "request_output_len": _one(0, np.int32),
        "stop": _one(True, np.bool_),
    }


def word_list(words: Sequence[Sequence[int]]) -> NDArray[Any]:
    """Token sequences as one [1, 2, n] tensor."""
    flat = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words])
    array = np.full((1, 2, max(len(flat), 1)), -1, np.int32)
    array[0, 0, :] = 0
    array[0, 0, : len(flat)] = flat
    array[0, 1, : len(ends)] = ends
    return array


def read(outputs: Mapping[str, NDArray[Any]]) -> Answer:
    """The first beam of a response; one without tokens is an empty answer."""
    ids, lengths = outputs.get("output_ids"), outputs.get("sequence_length")
    if ids is None or lengths is None:
        return Answer([], outputs=outputs)
    count = int(lengths.reshape(-1)[0])
    tokens = [int(token) for token in ids.reshape(lengths.size, -1)[0, :count]]
    log_probs: list[float] = []
    given = outputs.get("output_log_probs")
    if given is not None and tokens:
        # The whole answer's so far, or this response's alone: the newest stand at the end.
        log_probs = [float(each) for each in given.reshape(lengths.size, -1)[0]][-len(tokens) :]
    return Answer(tokens, log_probs, outputs)


def add_metrics(usage: Usage, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Take what the backend measured over into ``usage``; sums where a request took several."""
    figures = {name: int(outputs[name].reshape(-1)[0]) for name in PERF_METRICS if name in outputs}
    if not figures:
        return
    reused = figures.get("kv_cache_reused_blocks", 0)
    if not usage.kv_blocks_total:
        usage.kv_blocks_reused = reused
        usage.kv_blocks_total = reused + figures.get("kv_cache_alloc_new_blocks", 0)
        usage.arrived = figures.get("arrival_time_ns", 0) / _NANOSECONDS or usage.arrived
        usage.first_scheduled = figures.get("first_scheduled_time_ns", 0) / _NANOSECONDS
        first = figures.get("first_token_time_ns", 0) / _NANOSECONDS
        usage.first_token = first or usage.first_token
    usage.last_token = figures.get("last_token_time_ns", 0) / _NANOSECONDS or usage.last_token
    usage.draft_tokens += figures.get("total_draft_tokens", 0)
    usage.accepted_draft_tokens += figures.get("total_accepted_draft_tokens", 0)


def _one(value: float, kind: Any) -> NDArray[Any]:
    return np.array([[value]], kind)


def _text(value: str) -> NDArray[Any]:
    return np.array([[value.encode()]], object)
