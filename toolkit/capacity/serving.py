"""Latency and throughput of one replica under load, from the time that its steps take.

In-flight batching in a steady state: every step gives each running request its next token and
computes the prompts that arrived meanwhile. With b requests running, answers of n tokens and e
tokens a step, b e / n requests end in a step, and as many prompts are computed in one. So the
time between tokens holds the prefill of the others, as it does on a real server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from toolkit.capacity.efficiency import Efficiency
from toolkit.capacity.roofline import (
    Balance,
    Device,
    Step,
    Work,
    balance,
    prompt_step,
    step_seconds,
)
from toolkit.capacity.traffic import Traffic

_ROUNDS = 40
_SPARE = 2.0
"""Slots kept for chance, in standard deviations: with arrivals at random the number of running
requests is Poisson's (M/G/infinity), so it stays below its mean and two of them 98 % of the time.
"""


@dataclass(frozen=True, slots=True)
class Replica:
    """One copy of the model on its devices.

    Attributes:
        kv_tokens: Tokens that the KV cache holds; 0 stands for enough.
        max_batch: Requests that may run at once; 0 stands for as many as the cache holds.
        step_tokens: Prompt tokens that one step may compute.
        draft: The draft model's work for each drafted token, where there is such a model.
        most_drafting: Running requests above which none is drafted for; 0 stands for no limit.
    """

    work: Work
    device: Device
    factors: Efficiency
    kv_tokens: int = 0
    max_batch: int = 0
    step_tokens: int = 8192
    draft: Work | None = None
    most_drafting: int = 0

    def served(self, traffic: Traffic, running: float) -> Traffic:
        """The traffic as so many running requests meet it: drafting pauses above its limit."""
        paused = 0 < self.most_drafting < running
        return replace(traffic, drafts=0) if paused and traffic.drafts else traffic

    def slots(self, traffic: Traffic) -> float:
        """Requests of this size that run at once."""
        length = traffic.prompt_tokens + traffic.output_tokens + traffic.queries - 1
        most = self.kv_tokens / length if self.kv_tokens else math.inf
        return min(most, self.max_batch or math.inf)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A replica under one load; means, not percentiles.

    Attributes:
        running: Requests that are decoded at once.
        rate: Requests a second.
        ttft_s: Seconds to the first token, waiting for other prompts counted.
        tpot_s: Seconds between tokens.
        output_tokens_per_s: Of all requests together.
    """

    running: float
    rate: float
    ttft_s: float
    tpot_s: float
    output_tokens_per_s: float


def with_running(
    replica: Replica, traffic: Traffic, running: float, *, arriving: bool = False
) -> Estimate:
    """The replica with this many requests running all the time, so that one meets the prompts of
    the others; requests ``arriving`` at random find as many others as run on average."""
    traffic = replica.served(traffic, running)
    prompts = running * traffic.tokens_per_step / traffic.output_tokens
    rate = prompts / _step_seconds(replica, traffic, running, prompts)
    others = running if arriving else max(running - 1, 0.0)
    met = others * traffic.tokens_per_step / traffic.output_tokens
    step = _step_seconds(replica, traffic, running, met)
    return Estimate(
        running=running,
        rate=rate,
        ttft_s=_first_token(replica, traffic, others, met / step, step),
        tpot_s=step / traffic.tokens_per_step,
        output_tokens_per_s=rate * traffic.output_tokens,
    )


def decoding_tpot(replica: Replica, traffic: Traffic, running: float) -> float:
    """Seconds between tokens while so many requests are decoded and no prompt is computed."""
    traffic = replica.served(traffic, running)
    return _step_seconds(replica, traffic, running, 0.0) / traffic.tokens_per_step


def decode_balance(replica: Replica, traffic: Traffic, running: float) -> Balance:
    """What a step of so many requests, and no prompt, moves and computes."""
    context = traffic.prompt_tokens + traffic.output_tokens / 2
    step = Step(running, context, queries=replica.served(traffic, running).queries)
    return balance(replica.work, replica.device, replica.factors, step)


def prefill_balance(replica: Replica, traffic: Traffic) -> Balance:
    """What a lone prompt moves and computes, but for what is found in the cache."""
    step = prompt_step(traffic.prompt_tokens, cached=traffic.cached_tokens)
    return balance(replica.work, replica.device, replica.factors, step)


def with_users(replica: Replica, traffic: Traffic, users: float) -> Estimate:
    """The replica with so many users who each ask again when the answer is there.

    Of them, ``rate * ttft`` wait for their first token, and the others' requests are running; whose
    request runs meets the prompts of the others only. Those who find no slot wait outside.
    """
    inside = min(users, replica.slots(traffic))
    low, high = 0.0, 1.0
    for _ in range(_ROUNDS):
        share = (low + high) / 2
        made = _with_share(replica, traffic, inside, share)
        if made.running > inside * share:
            low = share
        else:
            high = share
    return _with_share(replica, traffic, inside, high)


def _with_share(replica: Replica, traffic: Traffic, users: float, share: float) -> Estimate:
    """Users of whom each decodes in this share of the time, as one of them meets the others."""
    others = max(users - 1, 0.0) * share
    traffic = replica.served(traffic, 1 + others)
    prompts = others * traffic.tokens_per_step / traffic.output_tokens
    step = _step_seconds(replica, traffic, 1 + others, prompts)
    ttft = _first_token(replica, traffic, others, prompts / step, step)
    decoding = traffic.output_tokens * step / traffic.tokens_per_step
    rate = users / (ttft + decoding)
    return Estimate(
        running=rate * decoding,
        rate=rate,
        ttft_s=ttft,
        tpot_s=step / traffic.tokens_per_step,
        output_tokens_per_s=rate * traffic.output_tokens,
    )


def at_rate(replica: Replica, traffic: Traffic, rate: float) -> Estimate | None:
    """The replica with so many requests a second arriving at random; None if it falls behind."""
    most = usable_slots(replica, traffic)
    low, high = 0.0, 1.0
    while with_running(replica, traffic, high, arriving=True).rate < rate:
        low, high = high, high * 2
        if low > most or high > 1e6:
            return None
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        if with_running(replica, traffic, middle, arriving=True).rate < rate:
            low = middle
        else:
            high = middle
    return with_running(replica, traffic, high, arriving=True) if high <= most else None


def usable_slots(replica: Replica, traffic: Traffic) -> float:
    """Mean number of running requests that leaves room for chance."""
    slots = replica.slots(traffic)
    if math.isinf(slots):
        return slots
    root = (-_SPARE + math.sqrt(_SPARE**2 + 4 * slots)) / 2
    return root**2


def best_within(
    replica: Replica, traffic: Traffic, *, ttft_s: float, tpot_s: float
) -> Estimate | None:
    """The greatest load that keeps both means; None if not even a single request does."""

    def good(running: float) -> Estimate | None:
        made = with_running(replica, traffic, running, arriving=True)
        return made if made.ttft_s <= ttft_s and made.tpot_s <= tpot_s else None

    most = min(usable_slots(replica, traffic), 4096.0)
    low = 0.01
    best = good(low) if most >= low else None
    if best is None or (whole := good(most)) is not None:
        return best and whole
    high = most
    for _ in range(_ROUNDS):
        middle = math.sqrt(low * high)
        made = good(middle)
        if made is None:
            high = middle
        else:
            low, best = middle, made
        if high - low < 0.001 * high:
            break
    return best


def frontier(replica: Replica, traffic: Traffic, *, points: int = 24) -> tuple[Estimate, ...]:
    """Throughput and latency from one running request to as many as fit, evenly by their logarithm.

    Empty if not even one fits.
    """
    most = min(replica.slots(traffic), 4096.0)
    if most < 1:
        return ()
    return tuple(
        with_running(replica, traffic, most ** (place / (points - 1))) for place in range(points)
    )


def speculation_gain(replica: Replica, traffic: Traffic, running: float) -> float:
    """How many times faster tokens come than without drafts; below 1 where drafts cost more."""
    plain = replace(traffic, drafts=0)
    return (
        with_running(replica, plain, running).tpot_s
        / with_running(replica, traffic, running).tpot_s
    )


def reuse_gain(replica: Replica, traffic: Traffic) -> float:
    """How many times sooner the first token of a lone request comes with this hit rate."""
    without = step_seconds(
        replica.work, replica.device, replica.factors, prompt_step(traffic.prompt_tokens)
    )
    cached = prompt_step(traffic.prompt_tokens, cached=traffic.cached_tokens)
    return without / step_seconds(replica.work, replica.device, replica.factors, cached)


def _step_seconds(replica: Replica, traffic: Traffic, running: float, prompts: float) -> float:
    """Mean seconds of a step. Less than one prompt a step means that few steps hold one: a step's
    time bends where reading weights and computing cross, so the two kinds are told apart."""
    if not 0 < prompts < 1:
        return _one_step(replica, traffic, running, prompts)
    without = _one_step(replica, traffic, running, 0.0)
    return without + prompts * (_one_step(replica, traffic, running, 1.0) - without)


def _one_step(replica: Replica, traffic: Traffic, running: float, prompts: float) -> float:
    prompt = prompt_step(traffic.prompt_tokens, cached=traffic.cached_tokens)
    step = Step(
        decodes=running,
        context=traffic.prompt_tokens + traffic.output_tokens / 2,
        prompt_tokens=prompts * prompt.prompt_tokens,
        prompt_pairs=prompts * prompt.prompt_pairs,
        prompt_rows=prompts,
        queries=traffic.queries,
    )
    seconds = step_seconds(replica.work, replica.device, replica.factors, step)
    if replica.draft is None or not traffic.drafts:
        return seconds
    drafted = replace(step, queries=1)
    more = replace(drafted, prompt_tokens=0.0, prompt_pairs=0.0, prompt_rows=0.0)
    first = step_seconds(replica.draft, replica.device, replica.factors, drafted)
    again = step_seconds(replica.draft, replica.device, replica.factors, more)
    return seconds + first + (traffic.drafts - 1) * again


def _first_token(
    replica: Replica, traffic: Traffic, running: float, rate: float, step: float
) -> float:
    """Half of a step that is under way, the prompts in front (M/D/1: Pollaczek and Khinchine), and
    the own prompt.

    Prompts are computed one after another beside the decoding requests, in chunks of
    ``step_tokens``.
    """
    lone = _step_seconds(replica, traffic, running, 0.0)
    with_one = _step_seconds(replica, traffic, running, 1.0)
    chunks = math.ceil((traffic.prompt_tokens - traffic.cached_tokens) / replica.step_tokens)
    own = with_one + (chunks - 1) * lone
    busy = min(rate * (with_one - lone), 1.0)
    if busy >= 1.0:
        return math.inf
    return min(running, 1.0) * step / 2 + busy / (2 * (1 - busy)) * own + own
