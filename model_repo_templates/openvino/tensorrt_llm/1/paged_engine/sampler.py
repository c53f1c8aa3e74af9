"""From a row of logits to a token.

Every token's randomness comes from the request's seed and the token's position alone: neither
what else runs in the batch nor speculation changes it. (Speculation can change the last bits of
the logits, since attention over several new tokens adds up in another order.)
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence as Ordered
from typing import Any

import numpy as np
from llm_serving.engine_api import Sampling

Vector = np.ndarray[Any, np.dtype[np.float32]]

_MASK64 = (1 << 64) - 1
_LIKELIEST = 1024
_COLDEST = 1e-6
"""Below it nothing but the most likely token is drawn, and logits would overflow."""


def fresh_seed() -> int:
    """A seed for a request that brings none."""
    return secrets.randbits(63)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) from seed and position (SplitMix64; Steele et al., 2014)."""
    state = (seed + (position + 1) * 0x9E3779B97F4A7C15) & _MASK64
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
    return float((state ^ (state >> 31)) >> 11) * 2.0**-53


def is_plain_greedy(sampling: Sampling, output_length: int, best: int) -> bool:
    """Whether ``best``, the most likely token of the raw logits, is the answer."""
    return (
        sampling.temperature == 0
        and not sampling.bad_words
        and not _penalizes(sampling)
        and (output_length >= sampling.min_tokens or best not in sampling.stop_token_ids)
    )


def choose(
    logits: Vector, sampling: Sampling, prompt: Ordered[int], output: Ordered[int], seed: int
) -> int:
    """The token after ``prompt`` and ``output``, from ``logits`` [vocabulary] (not changed)."""
    logits = adjust(logits, sampling, prompt, output)
    if sampling.temperature == 0:
        return int(logits.argmax())
    return _draw(logits, sampling.top_k, sampling.top_p, uniform(seed, len(output)))


def adjust(
    logits: Vector, sampling: Sampling, prompt: Ordered[int], output: Ordered[int]
) -> Vector:
    """A copy of ``logits`` with temperature, penalties and bans applied.

    Order and meaning are those of TensorRT-LLM (cpp/tensorrt_llm/kernels/penaltyKernels.cu,
    prompt_ignore_length 0): temperature first, and all penalties count prompt and output.
    """
    logits = logits.copy()
    if sampling.temperature:
        logits /= np.float32(max(sampling.temperature, _COLDEST))
    if _penalizes(sampling):
        _penalize(logits, sampling, (*prompt, *output))
    for word in sampling.bad_words:
        beginning = word[:-1]
        if not beginning or _ends_with(prompt, output, beginning):
            logits[word[-1]] = -np.inf
    if len(output) < sampling.min_tokens and sampling.stop_token_ids:
        logits[list(sampling.stop_token_ids)] = -np.inf
    return logits


def _penalizes(sampling: Sampling) -> bool:
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )


def _penalize(logits: Vector, sampling: Sampling, tokens: Ordered[int]) -> None:
    """Repetition penalty (Keskar et al., 2019), then presence and frequency penalty."""
    seen, counts = np.unique(np.asarray(tokens, np.int64), return_counts=True)
    values = logits[seen].astype(np.float64)
    penalty = sampling.repetition_penalty
    values = np.where(values > 0, values / penalty, values * penalty)
    values -= sampling.presence_penalty + sampling.frequency_penalty * counts
    largest = np.finfo(np.float32).max
    logits[seen] = np.clip(values, -largest, largest)


def log_probability(logits: Vector, token: int) -> float:
    """Natural logarithm of the model's probability of ``token``, before any adjustment."""
    largest = float(logits.max())
    total = float(np.exp(logits - np.float32(largest)).sum(dtype=np.float64))
    return float(logits[token]) - largest - math.log(total)


def _ends_with(prompt: Ordered[int], output: Ordered[int], ending: tuple[int, ...]) -> bool:
    tail = tuple(output[-len(ending) :])
    missing = len(ending) - len(tail)
    if missing:
        tail = (*prompt[-missing:], *tail)
    return tail == ending


def _draw(logits: Vector, top_k: int, top_p: float, draw: float) -> int:
    if top_k == 0 and top_p >= 1:
        return _pick(np.exp(logits - logits.max()), draw)
    candidates = _likeliest(logits, top_k or _LIKELIEST)
    weights = np.exp(logits[candidates] - logits[candidates[0]])
    if top_p < 1:
        total = weights.sum() if top_k else np.exp(logits - logits[candidates[0]]).sum()
        cumulative = np.cumsum(weights)
        kept = int(np.searchsorted(cumulative, np.float32(top_p) * total)) + 1
        if kept > len(candidates) and not top_k:
            candidates = _likeliest(logits, len(logits))
            weights = np.exp(logits[candidates] - logits[candidates[0]])
            kept = int(np.searchsorted(np.cumsum(weights), np.float32(top_p) * total)) + 1
        candidates, weights = candidates[:kept], weights[:kept]
    return int(candidates[_pick(weights, draw)])


def _likeliest(logits: Vector, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Indices of the ``count`` largest logits, largest first; equal ones by index."""
    count = min(count, len(logits))
    found = np.argpartition(-logits, count - 1)[:count]
    return np.sort(found)[np.argsort(-logits[np.sort(found)], kind="stable")]


def _pick(weights: Vector, draw: float) -> int:
    cumulative = np.cumsum(weights, dtype=np.float64)
    return min(
        int(np.searchsorted(cumulative, draw * cumulative[-1], side="right")), len(weights) - 1
    )
