"""Load to simulate: made from distributions with a seed, or a recorded list.

A recorded trace is a list of :class:`Planned` as it is; nothing else is needed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from toolkit.gateway.scheduling.prefixes import BLOCK


@dataclass(frozen=True, slots=True)
class Planned:
    """A request as it will be.

    ``at`` is when it comes, seconds from the beginning; for one that is another's ``then``, the
    seconds after that one's end. ``output_tokens`` is the answer's length, which the scheduler
    does not know; ``max_tokens`` is what the client allows. ``prefix`` names the prompt's blocks
    (see ``block_hashes``), ``after`` those of prompt and answer together. ``owner`` is an API key.
    """

    at: float
    request_class: str
    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    prefix: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    model: str = "model"
    deadline_s: float | None = None
    then: Planned | None = None
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Log-normal token counts: the median, the spread of the logarithm, and the longest."""

    median: float
    spread: float = 0.0
    most: int = 1 << 20

    def draw(self, source: random.Random) -> int:
        """One length, at least 1."""
        drawn = self.median * math.exp(source.gauss(0.0, self.spread))
        return max(1, min(self.most, round(drawn)))


@dataclass(frozen=True, slots=True)
class ClassLoad:
    """Poisson arrivals of one class."""

    request_class: str
    per_s: float
    prompt: Lengths
    output: Lengths
    max_tokens: int
    model: str = "model"
    deadline_s: float | None = None


def poisson(loads: Iterable[ClassLoad], seconds: float, seed: int) -> list[Planned]:
    """Independent requests of several classes, in order of arrival."""
    planned = []
    for load in loads:
        source = random.Random(f"{seed}/{load.model}/{load.request_class}")
        at = source.expovariate(load.per_s)
        while at < seconds:
            output = min(load.output.draw(source), load.max_tokens)
            planned.append(
                Planned(
                    at=at,
                    request_class=load.request_class,
                    prompt_tokens=load.prompt.draw(source),
                    output_tokens=output,
                    max_tokens=load.max_tokens,
                    model=load.model,
                    deadline_s=load.deadline_s,
                )
            )
            at += source.expovariate(load.per_s)
    return sorted(planned, key=lambda one: one.at)


@dataclass(frozen=True, slots=True)
class Talk:
    """Conversations: each turn's prompt is everything said before and a new message.

    ``shared`` tokens of system prompt are the same for all; ``think_s`` is the mean pause between
    an answer and the next message.
    """

    request_class: str
    per_s: float
    turns: int
    message: Lengths
    output: Lengths
    max_tokens: int
    think_s: float
    shared: int = 0
    model: str = "model"


def conversations(talk: Talk, seconds: float, seed: int) -> list[Planned]:
    """Conversations that begin at random and go on as they are answered."""
    source = random.Random(f"{seed}/{talk.model}/talk")
    planned: list[Planned] = []
    at = source.expovariate(talk.per_s)
    while at < seconds:
        planned.append(replace(_turns(talk, len(planned), source), at=at))
        at += source.expovariate(talk.per_s)
    return planned


def _turns(talk: Talk, number: int, source: random.Random) -> Planned:
    length = talk.shared
    sizes = []
    for _ in range(talk.turns):
        prompt = length + talk.message.draw(source)
        output = min(talk.output.draw(source), talk.max_tokens)
        length = prompt + output
        sizes.append((prompt, output, source.expovariate(1 / talk.think_s)))
    names = _names(talk.shared, number, length)
    planned: Planned | None = None
    for prompt, output, pause in reversed(sizes):
        planned = Planned(
            at=pause,
            request_class=talk.request_class,
            prompt_tokens=prompt,
            output_tokens=output,
            max_tokens=talk.max_tokens,
            prefix=tuple(names[: prompt // BLOCK]),
            after=tuple(names[: (prompt + output) // BLOCK]),
            model=talk.model,
            then=planned,
        )
    if planned is None:
        raise ValueError("a conversation has one turn at least")
    return planned


def _names(shared: int, number: int, length: int) -> Sequence[int]:
    """Names of a conversation's blocks; those within the system prompt are everybody's."""
    return [hash((-1 if (k + 1) * BLOCK <= shared else number, k)) for k in range(length // BLOCK)]
