"""One request from its first to its last token: plain, or with a draft model before it.

With a draft model each round asks the draft for a few tokens and hands them to the target, which
confirms the longest part that it would have chosen itself and adds one of its own. So every round
gives at least one token, the text is the target's, and it can be streamed round by round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from llm_serving.engine_api import FinishReason, GenerationRequest, TokenChunk, Usage

from . import wire
from .call import Call
from .settings import TritonEngineSettings

Start = Callable[[str, wire.Arrays, tuple[str, ...]], Call]
"""Makes a call that a cancellation finds."""


@dataclass
class _State:
    request: GenerationRequest
    usage: Usage
    tokens: list[int]

    @property
    def done(self) -> int:
        """Tokens that have come."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def left(self) -> int:
        """Tokens that may still come."""
        return self.request.sampling.max_tokens - self.done

    def round(self) -> GenerationRequest:
        """The request as the next round's own: what counts from its start is moved on."""
        sampling = self.request.sampling
        seed = None if sampling.seed is None else (sampling.seed + self.done) % 2**64
        least = max(0, sampling.min_tokens - self.done)
        return replace(self.request, sampling=replace(sampling, seed=seed, min_tokens=least))

    def chunk(self, answer: wire.Answer) -> TokenChunk:
        """The answer's tokens up to an end token."""
        ends = self.request.sampling.stop_token_ids
        count = next((n for n, t in enumerate(answer.tokens) if t in ends), len(answer.tokens))
        tokens = answer.tokens[: min(count, self.left)]
        now = time.monotonic()
        if tokens:
            self.usage.first_token = self.usage.first_token or now
            self.usage.last_token = now
        self.tokens += tokens
        self.usage.output_tokens += len(tokens)
        return TokenChunk(self.request.request_id, tokens, answer.log_probs[: len(tokens)])


def generate(
    request: GenerationRequest, settings: TritonEngineSettings, start: Start, usage: Usage
) -> Iterator[TokenChunk]:
    """Chunks of one request; the last one says why it ended. ``usage`` is kept up to date.

    Raises:
        BackendError: a model refused or failed.
    """
    state = _State(request, usage, list(request.prompt))
    drafts = settings.drafts_of(request)
    task_id = None if request.adapter is None else settings.adapters[request.adapter]
    if drafts:
        yield from _drafted(state, settings, start, task_id, drafts)
    else:
        yield from _plain(state, settings, start, task_id)
    finish: FinishReason = "length" if state.left <= 0 else "stop"
    yield TokenChunk(request.request_id, finish=finish, usage=usage)


def _plain(
    state: _State, settings: TritonEngineSettings, start: Start, task_id: int | None
) -> Iterator[TokenChunk]:
    request = state.request
    arrays = wire.inputs(
        request, request.prompt, state.left, streaming=request.stream, task_id=task_id
    )
    arrays["return_perf_metrics"] = np.array([[True]])
    for answer in start(settings.target, arrays, _outputs(request)).answers():
        wire.add_metrics(state.usage, answer.outputs)
        yield state.chunk(answer)


def _drafted(
    state: _State, settings: TritonEngineSettings, start: Start, task_id: int | None, drafts: int
) -> Iterator[TokenChunk]:
    while state.left > 0:
        request = state.round()
        proposed = _propose(state, settings, start, min(drafts, state.left - 1))
        # One more than proposed: the target's own token after the last that it confirms.
        arrays = wire.inputs(
            request, state.tokens, len(proposed) + 1, streaming=False, task_id=task_id
        )
        arrays["return_perf_metrics"] = np.array([[True]])
        if proposed:
            arrays["draft_input_ids"] = np.array([proposed], np.int32)
        before = len(state.tokens)
        for answer in start(settings.target, arrays, _outputs(request)).answers():
            wire.add_metrics(state.usage, answer.outputs)
            yield state.chunk(answer)
        new = state.tokens[before:]
        if _common(new, proposed) == len(new):
            return  # the target's own token is missing: it was an end token


def _common(one: list[int], other: list[int]) -> int:
    """Length of the common beginning."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def _propose(state: _State, settings: TritonEngineSettings, start: Start, count: int) -> list[int]:
    """Up to ``count`` tokens from the draft model; it may end early, and then proposes fewer."""
    assert settings.draft is not None, "without a draft model nothing is proposed"
    if count < 1:
        return []
    arrays = wire.inputs(state.round(), state.tokens, count, streaming=False)
    for name in ("return_log_probs", "guided_decoding_guide_type", "guided_decoding_guide"):
        arrays.pop(name, None)
    answers = start(settings.draft, arrays, wire.OUTPUTS).answers()
    proposed = [token for answer in answers for token in answer.tokens]
    ends = state.request.sampling.stop_token_ids
    stop = next((n for n, token in enumerate(proposed) if token in ends), len(proposed))
    return proposed[: min(stop, count)]


def _outputs(request: GenerationRequest) -> tuple[str, ...]:
    wanted = wire.OUTPUTS + wire.PERF_METRICS
    return wanted + wire.LOG_PROBS if request.sampling.log_probs else wanted
