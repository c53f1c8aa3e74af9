"""Find an engine's step costs from measurements: of steps, or of whole requests.

Either way the costs are moved until what they predict comes closest to what was measured:
Levenberg's and Marquardt's method on the logarithms, so that no cost gets below zero and relative
errors count. Steps (where an engine logs them) are predicted directly. Requests say only when they
began and ended, and what a step held at that time follows from the costs that are sought: they are
replayed through the simulated engine, each sent when it was sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from toolkit.gateway.simulation.engine import Running, SimulatedEngine
from toolkit.gateway.simulation.model import EngineModel
from toolkit.gateway.simulation.trace import Planned

Floats = NDArray[np.float64]
Errors = Callable[[Floats], Floats]

_ROUNDS = 12
_NUDGES = (0.2, 0.05, 0.01)  # of a logarithm, for slopes: steps are grainy, so far first
_WORTH = 0.003  # of the squared error, below which another round is not worth it
_LEAST = 1e-12


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


def fit_steps(engine: EngineModel, samples: Sequence[StepSample]) -> EngineModel:
    """This engine with the costs that explain the steps best: least relative squares, none below 0.

    Raises:
        ValueError: fewer than four samples.
    """
    if len(samples) < 4:
        raise ValueError(f"{len(samples)} samples; four costs need four at least")
    rows = np.array([(1.0, s.prefill_tokens, s.decodes, s.context_tokens) for s in samples], float)
    seconds = np.array([s.seconds for s in samples], float)
    # A sum in place of the model's root of squares: close enough to begin with.
    costs = np.log(np.maximum(_non_negative(rows / seconds[:, None]), _LEAST))

    def errors(costs: Floats) -> Floats:
        found = _with(engine, np.exp(costs))
        told = [found.step_time(s.prefill_tokens, s.decodes, s.context_tokens) for s in samples]
        return np.array([_log_ratio(*pair) for pair in zip(told, seconds.tolist(), strict=True)])

    return _with(engine, np.exp(_refined(errors, costs, errors(costs), _NUDGES)))


def fit_requests(engine: EngineModel, samples: Sequence[RequestSample]) -> EngineModel:
    """This engine with the costs whose replay comes closest to what was measured.

    The samples must be all that the engine served in that time. Best is a quiet phase of a few
    minutes, at a third of what it can do, and then one with all slots full and more waiting: the
    first tells a step's own cost from that of its answers, the second what matters most. Who waits
    may do so in the gateway as well as in the engine, if it keeps the order of arrival.

    Raises:
        ValueError: fewer than four samples.
    """
    if len(samples) < 4:
        raise ValueError(f"{len(samples)} samples; four costs need four at least")
    ordered = sorted(samples, key=lambda s: s.sent_at)

    def errors(costs: Floats) -> Floats:
        return _replay_errors(_with(engine, np.exp(costs)), ordered)

    found = []
    for guess in _first_guesses(ordered):
        costs = np.log(guess)
        found.append(_descend(errors, costs, errors(costs), _NUDGES[0]))
    costs, left = min(found, key=lambda one: float(one[1] @ one[1]))
    return _with(engine, np.exp(_refined(errors, costs, left, _NUDGES[1:])))


def _refined(errors: Errors, costs: Floats, left: Floats, nudges: Sequence[float]) -> Floats:
    for nudge in nudges:
        costs, left = _descend(errors, costs, left, nudge)
    return costs


def _descend(
    errors_of: Errors, costs: Floats, errors: Floats, nudge: float
) -> tuple[Floats, Floats]:
    """Improve the logarithms of the costs, with slopes over this distance, while it helps."""
    damping = 0.01
    for _ in range(_ROUNDS):
        nudged = [errors_of(costs + step) for step in nudge * np.eye(4)]
        slopes = np.stack([(other - errors) / nudge for other in nudged], axis=1)
        square, pull = slopes.T @ slopes, slopes.T @ errors
        before = float(errors @ errors)
        while damping < 1e3:
            step = np.linalg.solve(square + damping * np.diag(np.diag(square) + 1e-3), pull)
            tried = costs - np.clip(step, -1.0, 1.0)
            outcome = errors_of(tried)
            if float(outcome @ outcome) < before:
                break
            damping *= 5
        else:
            return costs, errors
        damping /= 5
        costs, errors = tried, outcome
        if float(errors @ errors) > (1 - _WORTH) * before:
            return costs, errors
    return costs, errors


def _with(engine: EngineModel, costs: Floats) -> EngineModel:
    step, prefill, decode, context = (float(cost) for cost in costs)
    return replace(engine, step_s=step, prefill_s=prefill, decode_s=decode, context_s=context)


def _first_guesses(samples: Sequence[RequestSample]) -> list[Floats]:
    """Orders of magnitude from medians; how a token's gap divides between step and answers varies.

    Several, because at full load a dear step and dear answers look much alike.
    """
    gaps = [
        (s.ended_at - s.first_token_at) / (s.output_tokens - 1)
        for s in samples
        if s.output_tokens > 1
    ]
    starts = [
        (s.first_token_at - s.sent_at) / max(1, s.prompt_tokens - s.cached_tokens) for s in samples
    ]
    gap, start = float(np.median(gaps or [0.01])), float(np.median(starts))
    context = float(np.mean([s.prompt_tokens + s.output_tokens for s in samples]))
    return [
        np.maximum([gap * own, start / 2, gap * (1 - own) / 8, gap / 100 / context], _LEAST)
        for own in (0.2, 0.5, 0.8)
    ]


def _replay_errors(engine: EngineModel, samples: Sequence[RequestSample]) -> Floats:
    """Logarithms of replayed over measured: times to the first token, then from it to the last."""
    firsts, lasts = replay(engine, samples)
    errors = []
    for sample, first, last in zip(samples, firsts, lasts, strict=True):
        errors.append(_log_ratio(first - sample.sent_at, sample.first_token_at - sample.sent_at))
        if sample.output_tokens > 1:
            errors.append(_log_ratio(last - first, sample.ended_at - sample.first_token_at))
    return np.array(errors)


def _log_ratio(replayed: float, measured: float) -> float:
    ratio = math.log(max(replayed, 1e-6) / max(measured, 1e-6))
    return max(-2.0, min(2.0, ratio))  # an outlier may not drag everything with it


def replay(
    engine: EngineModel, samples: Sequence[RequestSample]
) -> tuple[list[float], list[float]]:
    """When each request's first and last tokens would have come, had this engine served them.

    ``samples`` in the order of ``sent_at``.
    """
    simulated = SimulatedEngine(replace(engine, reuse=False), report_every=1 << 30)
    firsts, lasts = [0.0] * len(samples), [0.0] * len(samples)
    now, sent = -math.inf, 0
    while True:
        while sent < len(samples) and samples[sent].sent_at + engine.send_s <= now:
            simulated.add(_request(sent, samples[sent]))
            sent += 1
        seconds = simulated.begin_step()
        if seconds is None:
            if sent == len(samples):
                return firsts, lasts
            now = samples[sent].sent_at + engine.send_s
            continue
        now += seconds
        end = simulated.end_step()
        for request in end.first:
            firsts[int(request.id)] = now
        for request in end.done:
            lasts[int(request.id)] = now


def _request(number: int, sample: RequestSample) -> Running:
    plan = Planned(
        at=sample.sent_at,
        request_class="",
        prompt_tokens=sample.prompt_tokens,
        output_tokens=max(1, sample.output_tokens),
        max_tokens=max(1, sample.output_tokens),
    )
    return Running(str(number), plan, known_cached=sample.cached_tokens)


def _non_negative(rows: Floats) -> Floats:
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
    return answer
