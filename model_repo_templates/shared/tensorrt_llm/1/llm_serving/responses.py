"""Build and send what the client gets, and no output that it did not ask for.

Triton would drop those itself, but its python backend of 24.06 to 24.11 frees them without
Python's lock, which corrupts the model's memory sooner or later (python_backend pull 390).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import DTypeLike, NDArray

from .engine_api import Usage
from .stream import Stream, Waiting

Output = tuple[str, NDArray[Any]]

FINAL: int = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_NANOSECONDS = 1_000_000_000


def send_text(stream: Stream) -> None:
    """Send the text that waits, in a response that is not the last.

    It carries nothing else, unless log probabilities were asked for: every tensor costs.
    """
    waiting = stream.take()
    outputs = [_text(waiting.text)]
    if stream.wishes.log_probs:
        outputs += _log_probs(waiting)
    stream.handle.send(_response(stream, outputs))


def send_final(stream: Stream) -> None:
    """Send what is left, with finish reason and usage, and close the stream."""
    stream.handle.send(_response(stream, _final(stream)), flags=FINAL)


def _final(stream: Stream) -> Iterator[Output]:
    waiting = stream.take()
    yield _text(waiting.text)
    yield _one("finish_reason", stream.finish, object)
    yield _one("num_input_tokens", stream.prompt_tokens, np.int32)
    yield _one("num_output_tokens", stream.output_tokens, np.int32)
    if stream.stop_word is not None:
        yield _one("stop_reason", stream.stop_word.encode(), object)
    if stream.wishes.log_probs:
        yield from _log_probs(waiting)
        yield _one("cum_log_probs", stream.cumulative_log_prob, np.float32)
    if stream.wishes.perf_metrics:
        yield from _perf_metrics(stream.usage)


def _response(stream: Stream, outputs: Iterable[Output]) -> Any:
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, array) for name, array in outputs if stream.wants(name)]
    )


def send_error(handle: Any, message: str, code: int) -> None:
    """Answer a request with an error, which ends it."""
    error = pb_utils.TritonError(message, code)
    handle.send(pb_utils.InferenceResponse(error=error), flags=FINAL)


def _text(text: str) -> Output:
    # One dimension, as NVIDIA's postprocessing model sends it and its clients read it.
    return "text_output", np.array([text.encode()], dtype=object)


def _log_probs(waiting: Waiting) -> Iterator[Output]:
    yield "output_log_probs", np.array([[waiting.log_probs]], dtype=np.float32)
    yield "output_ids", np.array([[waiting.tokens]], dtype=np.int32)


def _one(name: str, value: Any, kind: DTypeLike) -> Output:
    return name, np.array([[value]], dtype=kind)


def _perf_metrics(usage: Usage) -> Iterator[Output]:
    """The names and units of the engine path's performance outputs, and ours beside them.

    Times are nanoseconds of the server's monotonic clock.
    """
    new_blocks = usage.kv_blocks_total - usage.kv_blocks_reused
    proposed = usage.draft_tokens
    yield _one("num_cached_tokens", usage.cached_tokens, np.int32)
    yield _one("num_preemptions", usage.preemptions, np.int32)
    yield _one("kv_cache_alloc_new_blocks", new_blocks, np.int32)
    yield _one("kv_cache_missed_blocks", new_blocks, np.int32)
    yield _one("kv_cache_reused_blocks", usage.kv_blocks_reused, np.int32)
    yield _one("kv_cache_alloc_total_blocks", usage.kv_blocks_total, np.int32)
    yield _one(
        "kv_cache_hit_rate", usage.kv_blocks_reused / max(usage.kv_blocks_total, 1), np.float32
    )
    for name, seconds in (
        ("arrival_time_ns", usage.arrived),
        ("first_scheduled_time_ns", usage.first_scheduled),
        ("first_token_time_ns", usage.first_token),
        ("last_token_time_ns", usage.last_token),
    ):
        yield _one(name, round(seconds * _NANOSECONDS), np.int64)
    yield _one("acceptance_rate", usage.accepted_draft_tokens / max(proposed, 1), np.float32)
    yield _one("total_accepted_draft_tokens", usage.accepted_draft_tokens, np.int32)
    yield _one("total_draft_tokens", proposed, np.int32)
