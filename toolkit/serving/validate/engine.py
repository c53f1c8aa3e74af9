"""Checks of limits and of what the engine promises: refusal, cancellation, reuse, speculation."""

from __future__ import annotations

import uuid

from toolkit.serving import metrics as metrics_text
from toolkit.serving import probe
from toolkit.serving.validate.answers import GOLDEN
from toolkit.serving.validate.check import Check, Context, Failed, Skipped

_FREED_SECONDS = 10.0
_MOST_REQUESTS = 2000
_FAMILIES = {
    "nv_inference_request_success": (),
    metrics_text.REQUESTS: ("active", "scheduled", "waiting"),
    metrics_text.KV_BLOCKS: ("max", "used"),
    metrics_text.GENERAL: ("iteration_counter",),
}
_LABELS = {
    metrics_text.REQUESTS: "request_type",
    metrics_text.KV_BLOCKS: "kv_cache_block_type",
    metrics_text.GENERAL: "general_type",
}


def _max_tokens(context: Context) -> str:
    for most in (1, 5):
        answer = context.ask(GOLDEN[1], most, min_tokens=most)
        count = answer.count("num_output_tokens")
        if count != most:
            raise Failed(f"max_tokens {most} gave {count} tokens: {answer.text!r}")
        if answer.outputs.get("finish_reason") != "length":
            raise Failed(f"max_tokens {most} ended with {answer.outputs.get('finish_reason')!r}")
    return "1 and 5 tokens, as asked"


def _long_prompt(context: Context) -> str:
    limit = context.deployment.engine.limits.max_input_len
    answer = context.client.ask("a " * (limit + 16), 1)
    if answer.error is None:
        raise Failed(f"a prompt of more than {limit} tokens was answered")
    if not any(name in answer.error for name in ("text_input", "max_input_len")):
        raise Failed(f"the error does not name text_input or max_input_len: {answer.error}")
    _still_serves(context)
    return answer.error[:100]


def _invalid(context: Context) -> str:
    for name, values in (
        ("max_tokens", {"max_tokens": -1}),
        ("temperature", {"temperature": float("nan")}),
        ("text_input", {"text_input": ""}),
    ):
        request = {"text_input": GOLDEN[0], "max_tokens": 4, **values}
        with context.client.open([request]) as stream:
            answer = stream.answer()
        if answer.error is None:
            raise Failed(f"{name}={values[name]!r} was accepted")
        if name not in answer.error:
            raise Failed(f"{name}={values[name]!r}: the error does not name it: {answer.error}")
    _still_serves(context)
    return "three wrong fields, each named in its error"


def _still_serves(context: Context) -> None:
    if not context.ask(GOLDEN[0], 4).text:
        raise Failed("the next valid request got no text")


def _cancellation(context: Context) -> str:
    if not context.wait_idle(_FREED_SECONDS):
        raise Failed("other requests are running; the check needs the server for itself")
    limits = context.deployment.engine.limits
    length = limits.max_seq_len - min(64, limits.max_input_len // 2)
    request = {"text_input": GOLDEN[1], "max_tokens": length, "min_tokens": length, "stream": True}
    before = _cancelled(context)
    with context.client.open([request]) as stream:
        first = stream.next()
        if first.error is not None:
            raise Failed(f"the request was refused: {first.error}")
        if first.finals[-1]:
            raise Failed(f"{length} tokens were asked for, the first response was the last")
        # Metrics are updated now and then: what they say of the end counts only from here.
        if not context.wait_for(lambda load: bool(load.running), _FREED_SECONDS):
            raise Failed("the metrics do not show the request that is running")
    if not context.wait_idle(_FREED_SECONDS):
        raise Failed(f"the request still runs {_FREED_SECONDS:.0f} s after its client left")
    after = _cancelled(context)
    if before is not None and after is not None and after <= before:
        raise Failed("the request ran to its end instead of being cancelled")
    return f"one of {length} tokens, freed when its client left"


def _cancelled(context: Context) -> float | None:
    """How many requests have been cancelled, where the runtime counts them."""
    found = probe.scrape(context.client.endpoints, 5.0)
    if found is None or "toolkit_llm_requests_total" not in found.families:
        return None
    return found.value("toolkit_llm_requests_total", finish_reason="cancelled") or 0.0


def _reuse(context: Context) -> str:
    engine = context.deployment.engine
    if not engine.kv_cache.reuse:
        raise Skipped("engine.kv_cache.reuse is off")
    room = engine.limits.max_input_len // 4  # a word may be several tokens
    block = engine.kv_cache.tokens_per_block
    if room < 2 * block:
        raise Skipped("engine.limits.max_input_len is below eight KV cache blocks")
    words = min(room, 8 * block)
    prompt = f"{uuid.uuid4()} " + " ".join(GOLDEN[1].split()[n % 11] for n in range(words))
    first, second = (context.ask(prompt, 2, return_perf_metrics=True) for _ in range(2))
    cached, total = second.count("num_cached_tokens"), second.count("num_input_tokens")
    if total < words:
        raise Failed(f"num_input_tokens is {total} for a prompt of {words} words")
    if cached <= first.count("num_cached_tokens"):
        raise Failed(
            f"the same prompt of {total} tokens again: {cached} came from the cache, "
            f"{first.count('num_cached_tokens')} the first time"
        )
    return f"{cached} of {total} prompt tokens came from the cache at the second time"


def _speculation(context: Context) -> str:
    method = context.deployment.engine.speculation
    if method is None:
        raise Skipped("engine.speculation is off")
    prompt = "one two three four five six seven eight. " * 4
    answer = context.ask(prompt, 48, min_tokens=48, return_perf_metrics=True)
    proposed = answer.count("total_draft_tokens")
    accepted = answer.count("total_accepted_draft_tokens")
    if not proposed:
        raise Failed(f"{method.method} proposed no token in 48")
    if accepted > proposed:
        raise Failed(f"{accepted} of {proposed} proposed tokens were accepted")
    return f"{method.method}: {proposed} proposed, {accepted} accepted"


def _metrics(context: Context) -> str:
    found = probe.scrape(context.client.endpoints, 5.0)
    if found is None:
        raise Failed(f"no metrics at {context.client.endpoints.metrics_url}")
    missing = []
    for family, kinds in _FAMILIES.items():
        if family not in found.families:
            missing.append(family)
        missing += [
            f'{family}{{{_LABELS[family]}="{kind}"}}'
            for kind in kinds
            if family in found.families and found.value(family, **{_LABELS[family]: kind}) is None
        ]
    if missing:
        raise Failed(f"missing: {', '.join(missing)}")
    return f"{len(found.families)} families"


def _queue_full(context: Context) -> str:
    engine = context.deployment.engine
    places = engine.limits.max_batch_size + engine.batching.max_queue_size
    if places > _MOST_REQUESTS:
        raise Skipped(f"filling the queue takes {places} requests")
    length = engine.limits.max_seq_len // 2
    request = {"text_input": GOLDEN[1], "max_tokens": length, "min_tokens": length, "stream": True}
    refused = None
    with context.client.open([request] * (places + 8)) as stream:
        while refused is None:
            part = stream.next()
            if part.error is not None:
                refused = part.error
        status, body = _over_http(context)
        if not context.wait_for(lambda load: bool(load.waiting), _FREED_SECONDS):
            raise Failed("the metrics do not show the requests that wait")
    if not context.wait_idle(6 * _FREED_SECONDS):
        raise Failed("the flood was cancelled, but requests still run or wait")
    # Triton 2.51 turns every error of a model into HTTP status 400, so clients go by the text.
    for way, text in (("gRPC", refused), ("HTTP", body)):
        if "retry" not in text:
            raise Failed(f"the error over {way} does not say that a retry may succeed: {text}")
    if status < 400:
        raise Failed(f"over HTTP a full queue gave status {status}")
    _still_serves(context)
    return f"request {places + 1} and on: {refused[:80]}"


def _over_http(context: Context) -> tuple[int, str]:
    client = context.client
    url = f"{client.endpoints.http_url}/v2/models/{client.model}/generate"
    status, body = probe.post(url, {"text_input": GOLDEN[0], "max_tokens": 1}, 30.0)
    return status, body.decode(errors="replace")


CHECKS = (
    Check(
        "max_tokens",
        "an answer has as many tokens as asked for, and says why it ended",
        "min_tokens and max_tokens have to reach the engine",
        _max_tokens,
    ),
    Check(
        "prompt limit",
        "a prompt over max_input_len is refused, and the server goes on",
        "engine.limits of the build and of the rendered repository have to be the same",
        _long_prompt,
    ),
    Check(
        "invalid fields",
        "a wrong value is refused by the name of its field, and the server goes on",
        "render the repository again with this version: toolkit build",
        _invalid,
    ),
    Check(
        "cancellation",
        "a client that leaves frees its place in the batch",
        "the model has to ask whether its request was cancelled; an ensemble hides it",
        _cancellation,
    ),
    Check(
        "kv reuse",
        "a prompt that was seen before is not computed again",
        "engine.kv_cache.size may be too small to keep blocks; or the prompt's beginning changes",
        _reuse,
    ),
    Check(
        "speculation",
        "draft tokens are proposed",
        "see that the draft engine is in the repository, and the log at load",
        _speculation,
    ),
    Check(
        "metrics",
        "the metrics that dashboards and schedulers read are there",
        "look for --allow-metrics=false, or a model of an older version",
        _metrics,
    ),
    Check(
        "full queue",
        "what exceeds the queue is refused so that clients try again, and nothing is lost",
        "see engine.batching.max_queue_size",
        _queue_full,
    ),
)
