"""One client request, parsed and checked: from tensors to what the engine is asked.

The names are those of NVIDIA's ensemble (triton_backend/all_models/inflight_batcher_llm in
NVIDIA/TensorRT-LLM); ``deadline_ms``, ``priority``, ``add_special_tokens``,
``skip_special_tokens`` and ``stop`` are beside it. Which sampling parameters mean greedy
decoding follows ``SamplingParams`` of TensorRT-LLM's LLM API: none of temperature, top_k and
top_p given, a temperature of 0, top_k 1 or top_p 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from .engine_api import GUIDES, Guide, Sampling
from .settings import Limits, Requests
from .tensors import FieldError, Fields, decode
from .tokenizer import TextTokenizer

NO_END_TOKEN = -1
"""``end_id`` with this value lets generation run on to ``max_tokens``."""


@dataclass(frozen=True)
class Wishes:
    """What a client wants to get back, apart from the tokens themselves."""

    stream: bool
    stop_words: tuple[str, ...]
    log_probs: bool
    perf_metrics: bool
    echo: str
    skip_special_tokens: bool


@dataclass(frozen=True)
class ParsedRequest:
    """A valid request; ``deadline_s`` counts from its arrival.

    The fields after it belong to inputs that only some deployments have.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    wishes: Wishes
    priority: int
    deadline_s: float | None
    adapter: str | None = None
    guide: Guide | None = None
    draft_tokens: int | None = None


def parse(
    fields: Fields, tokenizer: TextTokenizer, limits: Limits, bounds: Requests
) -> ParsedRequest:
    """Check every field.

    ``max_tokens`` is cut to what ``max_seq_len`` leaves, as TensorRT-LLM's executor does
    (GenericLlmRequest::validate), so that a client may ask for "all there is".

    Raises:
        FieldError: the first field that is wrong.
    """
    text, prompt = _prompt(fields, tokenizer, limits)
    _only_one_sequence(fields)
    max_tokens = fields.integer("max_tokens", low=1)
    if max_tokens is None:
        max_tokens = bounds.default_max_tokens
    sampling = _sampling(
        fields, tokenizer, bounds, min(max_tokens, limits.max_seq_len - len(prompt))
    )
    deadline_ms = fields.integer("deadline_ms", low=1)
    wishes = Wishes(
        stream=fields.flag("stream"),
        stop_words=fields.words(
            "stop_words", most=bounds.max_stop_words, longest=bounds.max_word_bytes
        ),
        log_probs=sampling.log_probs,
        perf_metrics=fields.flag("return_perf_metrics"),
        echo="" if fields.flag("exclude_input_in_output", default=True) else text,
        skip_special_tokens=fields.flag("skip_special_tokens", default=True),
    )
    return ParsedRequest(
        prompt=prompt,
        sampling=sampling,
        wishes=wishes,
        priority=fields.integer("priority") or 0,
        deadline_s=bounds.default_deadline_s if deadline_ms is None else deadline_ms / 1000,
        adapter=_adapter(fields),
        guide=_guide(fields),
        draft_tokens=fields.integer("num_draft_tokens", low=0),
    )


def _adapter(fields: Fields) -> str | None:
    raw = fields.text("lora_name")
    return decode("lora_name", raw) if raw else None


def _guide(fields: Fields) -> Guide | None:
    raw = fields.text("guided_decoding_guide_type")
    text = decode("guided_decoding_guide", fields.text("guided_decoding_guide") or b"")
    if not raw:
        if text:
            raise FieldError("guided_decoding_guide_type", "is missing beside the guide")
        return None
    kind = decode("guided_decoding_guide_type", raw)
    if kind not in GUIDES:
        raise FieldError("guided_decoding_guide_type", f"must be one of {', '.join(GUIDES)}")
    if not text and kind != "json":
        raise FieldError("guided_decoding_guide", f"is missing: {kind} needs one")
    return Guide(kind, text)


def _prompt(
    fields: Fields, tokenizer: TextTokenizer, limits: Limits
) -> tuple[str, tuple[int, ...]]:
    raw = fields.text("text_input")
    if not raw:
        raise FieldError("text_input", "is empty")
    # No token covers more bytes than the longest one: what is longer need not be tokenized.
    if len(raw) > limits.max_input_len * tokenizer.longest_token_bytes:
        raise FieldError(
            "text_input",
            f"has {len(raw)} bytes, too many for max_input_len of {limits.max_input_len} tokens",
        )
    text = decode("text_input", raw)
    prompt = tokenizer.encode(text, special=fields.flag("add_special_tokens", default=True))
    if not prompt:
        raise FieldError("text_input", "holds no tokens")
    if len(prompt) > limits.max_input_len:
        raise FieldError(
            "text_input", f"has {len(prompt)} tokens, max_input_len is {limits.max_input_len}"
        )
    return text, prompt


def _only_one_sequence(fields: Fields) -> None:
    for name in ("beam_width", "num_return_sequences"):
        if (fields.integer(name) or 1) != 1:
            raise FieldError(name, "only 1 is supported")


def _sampling(
    fields: Fields, tokenizer: TextTokenizer, bounds: Requests, max_tokens: int
) -> Sampling:
    temperature = fields.number("temperature", low=0)
    top_k = fields.integer("top_k", low=0)
    top_p = fields.number("top_p", low=0, high=1)
    greedy = (
        (temperature is None and not top_k and top_p is None)
        or temperature == 0
        or top_k == 1
        or top_p == 0
    )
    bad_words = fields.words("bad_words", most=bounds.max_bad_words, longest=bounds.max_word_bytes)
    return Sampling(
        max_tokens=max_tokens,
        min_tokens=_either(fields, "min_tokens", "min_length", low=0) or 0,
        temperature=0.0 if greedy else (1.0 if temperature is None else temperature),
        top_k=top_k or 0,
        top_p=top_p or 1.0,
        repetition_penalty=_repetition_penalty(fields),
        presence_penalty=fields.number("presence_penalty") or 0.0,
        frequency_penalty=fields.number("frequency_penalty") or 0.0,
        seed=_either(fields, "seed", "random_seed", low=0),
        stop_token_ids=_end_tokens(fields, tokenizer),
        bad_words=tokenizer.word_tokens(bad_words),
        log_probs=fields.flag("return_log_probs"),
    )


def _either(fields: Fields, name: str, older: str, *, low: int) -> int | None:
    """The value of ``name``, or of what releases up to 0.19 called it."""
    value = fields.integer(name, low=low)
    return fields.integer(older, low=low) if value is None else value


def _repetition_penalty(fields: Fields) -> float:
    value = fields.number("repetition_penalty")
    if value is None:
        return 1.0
    if value <= 0:
        raise FieldError("repetition_penalty", f"must be above 0, got {value:g}")
    return value


def _end_tokens(fields: Fields, tokenizer: TextTokenizer) -> tuple[int, ...]:
    end_id = fields.integer("end_id", low=NO_END_TOKEN, high=tokenizer.vocabulary_size - 1)
    # Clients of the engine path send the padding token along; nothing is padded here.
    fields.integer("pad_id")
    if end_id is None:
        return tokenizer.end_tokens
    return () if end_id == NO_END_TOKEN else (end_id,)
