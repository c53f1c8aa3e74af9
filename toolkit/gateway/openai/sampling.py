"""From a request's fields to how tokens are drawn."""

from __future__ import annotations

import orjson

from toolkit.gateway.openai.errors import invalid, unsupported
from toolkit.gateway.openai.fields import GenerationRequest
from toolkit.gateway.openai.requests import JsonFormat, ResponseFormat, SchemaFormat
from toolkit.gateway.work import Guide, Sampling

DEFAULT_TEMPERATURE = 1.0
_GOLDEN = 0x9E3779B97F4A7C15
_MASK63 = (1 << 63) - 1


def sampling_of(
    request: GenerationRequest,
    *,
    limit: int,
    log_probs: bool,
    guide: Guide | None,
    adapter: str | None,
    choice: int,
) -> Sampling:
    """How the ``choice``-th answer is drawn, of at most ``limit`` tokens.

    Raises:
        GatewayError: 400, fields contradict each other.
    """
    if request.min_tokens is not None and request.min_tokens > limit:
        raise invalid("min_tokens", f"the answer may have {limit} tokens at most")
    temperature = request.temperature
    return Sampling(
        max_tokens=limit,
        min_tokens=request.min_tokens,
        temperature=DEFAULT_TEMPERATURE if temperature is None else temperature,
        top_p=request.top_p,
        top_k=request.top_k if request.top_k and request.top_k > 0 else None,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        seed=seed_of(request.seed, choice),
        stop=request.stops,
        ignore_eos=bool(request.ignore_eos),
        log_probs=log_probs,
        guide=guide,
        adapter=adapter,
    )


def seed_of(seed: int | None, choice: int) -> int | None:
    """The seed of one of several answers: 63 bits, far apart for neighbours.

    The first keeps the request's own, so that asking for more answers does not change it.
    """
    return None if seed is None else (seed + choice * _GOLDEN) & _MASK63


def guide_of(wanted: ResponseFormat | None, *, guided: bool) -> Guide | None:
    """What ``response_format`` demands of the text.

    Raises:
        GatewayError: 400, the engine does not guide decoding.
    """
    if not isinstance(wanted, JsonFormat | SchemaFormat):
        return None
    if not guided:
        raise unsupported(
            "response_format",
            "can only be text: this model is deployed without guided decoding",
        )
    if isinstance(wanted, SchemaFormat) and wanted.json_schema.schema_ is not None:
        return Guide("json_schema", orjson.dumps(wanted.json_schema.schema_).decode())
    return Guide("json")
