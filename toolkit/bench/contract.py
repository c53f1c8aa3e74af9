"""The names that deployments use at their public interface, in one place.

They are those of NVIDIA's ensemble and, for usage, of the LLM API model and of the engine
path's performance outputs (triton_backend/all_models in NVIDIA/TensorRT-LLM).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.bench.records import Request, Usage

TEXT_OUTPUT = "text_output"
STREAM = "stream"
REQUIRED_INPUTS = ("text_input", "max_tokens")
WISHES = ("return_perf_metrics", "return_num_input_tokens", "return_num_output_tokens")
"""Flags that make a server tell its usage, set where a model has them."""

SEEDS = ("seed", "random_seed")
OVERLOAD_SIGNS = ("queue is full", "queue full", "too many requests", "exceeds maximum queue size")
"""What the message of a refusal says when the server is full and the client may retry."""

_INPUT_TOKENS = "num_input_tokens"
_OUTPUT_TOKENS = "num_output_tokens"
_CACHED = "num_cached_tokens"
_DRAFTED = "total_draft_tokens"
_ACCEPTED = "total_accepted_draft_tokens"
_FINISH = "finish_reason"
_ARRIVED = "arrival_time_ns"
_SCHEDULED = "first_scheduled_time_ns"
_FIRST_TOKEN = "first_token_time_ns"
USAGE_OUTPUTS = frozenset(
    {
        _INPUT_TOKENS,
        _OUTPUT_TOKENS,
        _CACHED,
        _DRAFTED,
        _ACCEPTED,
        _FINISH,
        _ARRIVED,
        _SCHEDULED,
        _FIRST_TOKEN,
    }
)
"""Output tensors of the final response that :func:`usage` reads."""


def inputs(request: Request, stream: bool, known: frozenset[str]) -> dict[str, Any]:
    """The input tensors of ``request`` by name, as far as the model has them (``known``)."""
    sampling = request.sampling
    values: dict[str, Any] = {
        "text_input": request.prompt,
        "max_tokens": request.max_tokens,
        STREAM: stream,
        "min_tokens": request.min_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        **dict.fromkeys(WISHES, True),
    }
    seed = next((name for name in SEEDS if name in known), SEEDS[0])
    values[seed] = sampling.seed
    return {name: value for name, value in values.items() if value is not None and name in known}


def usage(outputs: Mapping[str, Any]) -> Usage:
    """The usage among output values by name; what is missing or malformed stays None."""
    finish = _first(outputs.get(_FINISH))
    return Usage(
        prompt_tokens=_count(outputs, _INPUT_TOKENS),
        output_tokens=_count(outputs, _OUTPUT_TOKENS),
        cached_tokens=_count(outputs, _CACHED),
        queue_time_ms=_between(outputs, _ARRIVED, _SCHEDULED),
        ttft_ms=_between(outputs, _ARRIVED, _FIRST_TOKEN),
        draft_tokens=_count(outputs, _DRAFTED),
        accepted_draft_tokens=_count(outputs, _ACCEPTED),
        finish_reason=finish if isinstance(finish, str) else None,
    )


def failure_kind(message: str, *, status: int | None = None) -> str:
    """Group an error from the server: by its HTTP status where there is one, else its text."""
    text = message.lower()
    if status == 429 or any(sign in text for sign in OVERLOAD_SIGNS):
        return "overload"
    return "refused" if status is not None and 400 <= status < 500 else "server"


def _first(value: Any) -> Any:
    while isinstance(value, list):
        value = value[0] if value else None
    return value


def _count(outputs: Mapping[str, Any], name: str) -> int | None:
    value = _first(outputs.get(name))
    return int(value) if isinstance(value, int | float) else None


def _between(outputs: Mapping[str, Any], start: str, end: str) -> float | None:
    """Milliseconds from one of the server's times to another; an unset time is zero."""
    first, last = _count(outputs, start), _count(outputs, end)
    return (last - first) / 1e6 if first and last else None
