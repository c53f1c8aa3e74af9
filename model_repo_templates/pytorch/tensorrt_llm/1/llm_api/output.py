"""What the LLM API gives back, as chunks of tokens.

A result object is the same one at every step; its ``token_ids`` and ``logprobs`` grow. An entry
of ``logprobs`` is a number, or a dictionary from token to an object with ``logprob``, by release.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from llm_serving.engine_api import FinishReason, GenerationRequest, TokenChunk, Usage

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "cancelled": "cancelled",
    "timeout": "deadline",
}


class Progress:
    """How far one request has come."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self._seen = 0
        self._usage = Usage(prompt_tokens=len(request.prompt), arrived=time.monotonic())

    def take(self, result: Any) -> TokenChunk | None:
        """What is new in ``result``; None if nothing is."""
        output = result.outputs[0]
        tokens = [int(token) for token in output.token_ids[self._seen :]]
        log_probs = self._log_probs(output, tokens)
        finish = _REASONS[output.finish_reason or "length"] if result.finished else None
        if finish == "stop":
            # Some releases hand the end token out with the rest.
            ends = self.request.sampling.stop_token_ids
            while tokens and tokens[-1] in ends:
                tokens.pop()
                del log_probs[len(tokens) :]
        if not tokens and finish is None:
            return None
        self._seen += len(tokens)
        self._count(len(tokens))
        chunk = TokenChunk(self.request.request_id, tokens, log_probs, finish)
        if finish is not None:
            chunk.usage = self._final(result, output)
        return chunk

    def end(self, finish: FinishReason, error: str = "") -> TokenChunk:
        """The last chunk of a request that does not end by itself."""
        return TokenChunk(self.request.request_id, finish=finish, usage=self._usage, error=error)

    def _log_probs(self, output: Any, tokens: list[int]) -> list[float]:
        if not self.request.sampling.log_probs or not output.logprobs:
            return []
        entries = output.logprobs[self._seen : self._seen + len(tokens)]
        return [
            float(entry[token].logprob) if isinstance(entry, dict) else float(entry)
            for token, entry in zip(tokens, entries, strict=True)
        ]

    def _count(self, tokens: int) -> None:
        self._usage.output_tokens += tokens
        if tokens:
            self._usage.last_token = time.monotonic()
            self._usage.first_token = self._usage.first_token or self._usage.last_token
            self._usage.first_scheduled = self._usage.first_scheduled or self._usage.arrived

    def _final(self, result: Any, output: Any) -> Usage:
        usage = self._usage
        usage.cached_tokens = int(getattr(result, "cached_tokens", None) or 0)
        metrics = getattr(output, "request_perf_metrics", None)
        if metrics is None:
            return usage
        timing, cache = metrics.timing_metrics, metrics.kv_cache_metrics
        usage.arrived = _seconds(timing.arrival_time) or usage.arrived
        usage.first_scheduled = _seconds(timing.first_scheduled_time) or usage.first_scheduled
        usage.first_token = _seconds(timing.first_token_time) or usage.first_token
        usage.last_token = _seconds(timing.last_token_time) or usage.last_token
        usage.kv_blocks_reused = int(cache.num_reused_blocks)
        usage.kv_blocks_total = int(cache.num_reused_blocks + cache.num_missed_blocks)
        drafting = metrics.speculative_decoding
        usage.draft_tokens = int(drafting.total_draft_tokens)
        usage.accepted_draft_tokens = int(drafting.total_accepted_draft_tokens)
        return usage


def _seconds(moment: timedelta | float) -> float:
    """Of the steady clock, which is ``time.monotonic`` on Linux."""
    return moment.total_seconds() if isinstance(moment, timedelta) else float(moment)
