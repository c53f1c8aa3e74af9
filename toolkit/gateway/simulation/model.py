"""What an engine costs a step, and how to find that out from measurements.

A step of continuous batching computes one token for every running answer and a chunk of waiting
prompts. Its time is modelled as

    step_s + prefill_s * prompt tokens + decode_s * answers + context_s * tokens in their contexts

The four are fitted to steps (:class:`StepSample`), where an engine logs them, or to whole requests
(:class:`RequestSample`), as any client sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StepSample:
    """One measured step: prompt tokens computed, answers advanced, tokens in their contexts."""

    prefill_tokens: int
    decodes: int
    context_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RequestSample:
    """One measured request, times in seconds of one clock.

    ``sent_at`` is when the engine got it, not when it came to the gateway.
    """

    sent_at: float
    first_token_at: float
    ended_at: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class EngineModel:
    """An engine: what a step costs, and what it holds.

    ``kv_tokens`` 0 stands for enough. ``reuse``: finished prompts stay in the KV cache until it
    needs the room. ``send_s`` passes between the gateway's decision and the engine's queue.
    """

    step_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    context_s: float = 0.0
    slots: int = 64
    kv_tokens: int = 0
    max_num_tokens: int = 2048
    reuse: bool = True
    send_s: float = 0.001

    def step_time(self, prefill_tokens: int, decodes: int, context_tokens: int) -> float:
        """Seconds that a step takes."""
        return (
            self.step_s
            + self.prefill_s * prefill_tokens
            + self.decode_s * decodes
            + self.context_s * context_tokens
        )

    def fit(self, samples: Sequence[StepSample] | Sequence[RequestSample]) -> EngineModel:
        """This engine with the step costs that explain the samples best.

        Least squares of the relative errors, no coefficient below zero. Requests must be all that
        the engine served in that time, and should cover low and full load, else the coefficients
        cannot be told apart.

        Raises:
            ValueError: fewer than four samples.
        """
        if len(samples) < 4:
            raise ValueError(f"{len(samples)} samples; four coefficients need four at least")
        steps = [s for s in samples if isinstance(s, StepSample)]
        requests = [s for s in samples if isinstance(s, RequestSample)]
        rows, seconds = _step_rows(steps) if steps else _request_rows(requests, self)
        a, b, c, d = _non_negative(rows / seconds[:, None])
        return replace(self, step_s=a, prefill_s=b, decode_s=c, context_s=d)


def _step_rows(samples: Sequence[StepSample]) -> tuple[Floats, Floats]:
    rows = [(1.0, s.prefill_tokens, s.decodes, s.context_tokens) for s in samples]
    return np.array(rows, float), np.array([s.seconds for s in samples], float)


def _request_rows(samples: Sequence[RequestSample], engine: EngineModel) -> tuple[Floats, Floats]:
    """Two equations a request: what happened in the engine until its first token, and after.

    Every step in those spans is paid for by all who share it: a span's time is the number of its
    steps, the prompt tokens, tokens and contexts of everybody within it, each times its price. Of
    a request that lies only partly in the span, the overlapping part counts.
    """
    at = {name: np.array([getattr(s, name) for s in samples], float) for name in _FIELDS}
    sent, first, ended = at["sent_at"], at["first_token_at"], at["ended_at"]
    uncached = at["prompt_tokens"] - at["cached_tokens"]
    after_first = np.maximum(at["output_tokens"] - 1, 0)
    context = at["prompt_tokens"] + at["output_tokens"] / 2
    reading, writing = np.maximum(first - sent, 1e-9), np.maximum(ended - first, 1e-9)
    rows, seconds = [], []
    for k in range(len(samples)):
        for begin, end, steps in (
            (sent[k], first[k], np.ceil(uncached[k] / engine.max_num_tokens)),
            (first[k], ended[k], after_first[k]),
        ):
            if end - begin <= 0 or steps <= 0:
                continue
            read = np.clip(np.minimum(first, end) - np.maximum(sent, begin), 0, None) / reading
            wrote = np.clip(np.minimum(ended, end) - np.maximum(first, begin), 0, None) / writing
            tokens = wrote * after_first
            # Whoever writes through the whole span has counted its steps.
            steps = max(steps, tokens.max(initial=0.0))
            rows.append((steps, (read * uncached).sum(), tokens.sum(), (tokens * context).sum()))
            seconds.append(end - begin)
    return np.array(rows, float), np.array(seconds, float)


_FIELDS = tuple(RequestSample.__slots__)


def _non_negative(rows: Floats) -> tuple[float, float, float, float]:
    """Solve ``rows @ x = 1`` for x >= 0 by trying which of the four are zero: exact, 15 cases."""
    best, answer = np.inf, np.zeros(4)
    target = np.ones(len(rows))
    for count in range(1, 5):
        for used in combinations(range(4), count):
            part = rows[:, used]
            solution = np.linalg.lstsq(part, target, rcond=None)[0]
            error = float(((part @ solution - target) ** 2).sum())
            if (solution >= 0).all() and error < best:
                best, answer = error, np.zeros(4)
                answer[list(used)] = solution
    a, b, c, d = (float(x) for x in answer)
    return a, b, c, d
