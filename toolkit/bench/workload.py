"""What is asked: sessions of one or more turns, made from a seed.

A session's content depends on the workload, the salt and its number alone, so that two runs
with one seed ask the same, whatever the order in which answers come back.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from toolkit.bench.chat import ChatFormat, Message, PlainChat
from toolkit.bench.lengths import Count, Fixed, Length
from toolkit.bench.prompts_file import FileSession, read_prompts
from toolkit.bench.traces import read_trace
from toolkit.bench.traces_replay import Longest, Replay, replay
from toolkit.bench.traces_text import BlockText
from toolkit.bench.vocabulary import Vocabulary, Words
from toolkit.spec.section import Section
from toolkit.spec.units import Duration

_DRAWS = 256


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session: what the user adds, and how much may come back."""

    text: str
    max_tokens: int
    min_tokens: int | None = None


@dataclass(frozen=True)
class Session:
    """Turns of one user. With ``chat`` the history grows with the model's real answers;
    without, each turn's text is the whole prompt."""

    number: int
    turns: tuple[Turn, ...]
    system: str = ""
    chat: ChatFormat | None = None
    request_class: str = ""
    think_time: float = 0.0

    def prompt(self, turn: int, answers: Sequence[str]) -> str:
        """The prompt of a turn, given the answers to those before it."""
        if self.chat is None:
            return self.turns[turn].text
        messages = [Message("system", self.system)] if self.system else []
        for past, answer in zip(self.turns, answers[:turn], strict=False):
            messages += [Message("user", past.text), Message("assistant", answer)]
        return self.chat.prompt([*messages, Message("user", self.turns[turn].text)])


@dataclass(frozen=True)
class Material:
    """What prompts are made with: the deployment's tokenizer and chat template, or stand-ins.

    ``salt`` is mixed into every seed: runs that have different salts share no prompt, so that
    the server's prefix cache does not answer one from the other. Of the sessions of a workload
    ``part`` (index, number of parts) is made: every n-th.
    """

    vocabulary: Vocabulary = field(default_factory=Words)
    chat: ChatFormat = field(default_factory=PlainChat)
    salt: str = ""
    part: tuple[int, int] = (0, 1)

    def numbers(self) -> Iterator[int]:
        """The numbers of the sessions to make, endlessly."""
        return itertools.count(*self.part)

    def dice(self, *names: Any) -> random.Random:
        """A random generator of its own for whatever ``names`` says."""
        return random.Random(":".join(map(str, (self.salt, *names))))


class _Synthetic(Section):
    output_tokens: Length = Field(default=Fixed(tokens=64), description="Tokens to generate.")
    exact_output: bool = Field(
        default=True, description="Forbid the model to stop before output_tokens (min_tokens)."
    )
    request_class: str = Field(default="", description="Scheduling class to send and judge by.")

    def mean_output(self) -> float:
        """Tokens of a session's answers, on average."""
        return _mean(self.output_tokens)

    def _turn(self, text: str, dice: random.Random) -> Turn:
        tokens = self.output_tokens.draw(dice)
        return Turn(text, tokens, tokens if self.exact_output else None)


def _mean(length: Length) -> float:
    dice = random.Random(0)
    return sum(length.draw(dice) for _ in range(_DRAWS)) / _DRAWS


class Independent(_Synthetic):
    """Unrelated prompts of random words."""

    type: Literal["independent"] = "independent"
    prompt_tokens: Length = Field(default=Fixed(tokens=256), description="Tokens of a prompt.")

    def sessions(self, material: Material) -> Iterator[Session]:
        """Endlessly many sessions of one turn."""
        for number in material.numbers():
            dice = material.dice("independent", number)
            text = material.vocabulary.make(self.prompt_tokens.draw(dice), dice)
            yield Session(number, (self._turn(text, dice),), request_class=self.request_class)


class SharedPrefix(_Synthetic):
    """Prompts that begin with one of a few long texts: a system prompt, a document."""

    type: Literal["shared_prefix"]
    prefix_tokens: Count = Field(default=1024, description="Tokens of each shared text.")
    prefixes: Count = Field(default=1, description="How many shared texts take turns.")
    prompt_tokens: Length = Field(
        default=Fixed(tokens=64), description="Further tokens, unique to a prompt."
    )

    def sessions(self, material: Material) -> Iterator[Session]:
        """Endlessly many sessions of one turn."""
        prefixes = [
            material.vocabulary.make(self.prefix_tokens, material.dice("prefix", index))
            for index in range(self.prefixes)
        ]
        for number in material.numbers():
            dice = material.dice("shared_prefix", number)
            own = material.vocabulary.make(self.prompt_tokens.draw(dice), dice)
            text = f"{prefixes[number % self.prefixes]} {own}"
            yield Session(number, (self._turn(text, dice),), request_class=self.request_class)


class Conversation(_Synthetic):
    """Users who talk for several turns; every turn sends the whole history again."""

    type: Literal["conversation"]
    turns: Length = Field(default=Fixed(tokens=4), description="Turns of a conversation.")
    system_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=128, description="Tokens of a system prompt that all conversations share."
    )
    user_tokens: Length = Field(
        default=Fixed(tokens=48), description="Tokens a user adds each turn."
    )
    think_time: Duration = Field(default=0.0, description="From an answer to the next turn.")

    def mean_output(self) -> float:
        """Tokens of a session's answers, on average."""
        return _mean(self.turns) * super().mean_output()

    def sessions(self, material: Material) -> Iterator[Session]:
        """Endlessly many conversations."""
        make = material.vocabulary.make
        system = make(self.system_tokens, material.dice("system")) if self.system_tokens else ""
        for number in material.numbers():
            dice = material.dice("conversation", number)
            turns = tuple(
                self._turn(make(self.user_tokens.draw(dice), dice), dice)
                for _ in range(self.turns.draw(dice))
            )
            yield Session(number, turns, system, material.chat, self.request_class, self.think_time)


class PromptFile(Section):
    """Prompts of a JSONL file; its format is told by :mod:`toolkit.bench.prompts_file`."""

    type: Literal["file"]
    path: str = Field(min_length=1, description="The JSONL file; counted from the scenario's.")
    output_tokens: Count = Field(default=64, description="For lines that do not say max_tokens.")
    exact_output: bool = Field(default=False, description="Forbid to stop earlier.")
    shuffle: bool = Field(default=False, description="In random order instead of the file's.")
    repeat: bool = Field(default=True, description="Begin again after the last line.")
    request_class: str = Field(default="", description="For lines that do not say class.")

    def mean_output(self) -> float:
        """Tokens of an answer, for sessions of one turn that do not say."""
        return float(self.output_tokens)

    def sessions(self, material: Material) -> Iterator[Session]:
        """The file's sessions, over and over with ``repeat``.

        Raises:
            SpecError: the file is missing, or a line is wrong.
        """
        lines = read_prompts(Path(self.path))
        dice = material.dice("file")
        for number, line in itertools.islice(self._all(lines, dice), *_slice(material)):
            yield self._session(number, line, material)

    def _all(
        self, lines: list[FileSession], dice: random.Random
    ) -> Iterator[tuple[int, FileSession]]:
        for round_ in itertools.count() if self.repeat else (0,):
            shuffled = dice.sample(lines, len(lines)) if self.shuffle else lines
            yield from enumerate(shuffled, round_ * len(lines))

    def _session(self, number: int, line: FileSession, material: Material) -> Session:
        tokens = line.max_tokens or self.output_tokens
        least = tokens if self.exact_output else None
        return Session(
            number,
            tuple(Turn(text, tokens, least) for text in line.turns),
            line.system,
            None if line.is_prompt else material.chat,
            line.request_class or self.request_class,
        )


@lru_cache(maxsize=2)
def _replay(workload: TraceFile, changed: int) -> Replay:
    """Read once for sessions, arrival times and notes alike; again when the file changes."""
    form = None if workload.format == "auto" else workload.format
    path, block_tokens = Path(workload.path), workload.block_tokens
    trace = read_trace(path, form, block_tokens=block_tokens, limit=workload.limit)
    skip = workload.longer == "skip"
    most = Longest(
        workload.max_prompt_tokens, workload.max_output_tokens, workload.max_total_tokens
    )
    return replay(trace, most, skip)


def _slice(material: Material) -> tuple[int, None, int]:
    """What ``itertools.islice`` takes to leave the sessions of other parts out."""
    start, step = material.part
    return start, None, step


class TraceFile(Section):
    """The requests of a trace (:mod:`toolkit.bench.traces`): its lengths and shared prefixes."""

    type: Literal["trace"]
    path: str = Field(min_length=1, description="The trace; counted from the scenario's file.")
    format: Literal["auto", "mooncake", "azure"] = Field(
        default="auto", description="auto: as the first line looks."
    )
    block_tokens: Count = Field(default=512, description="Tokens that a hash_id stands for.")
    limit: int = Field(default=100_000, ge=1, description="Lines of the trace to read at most.")
    max_prompt_tokens: Count | None = Field(default=None, description="Longest prompt to send.")
    max_output_tokens: Count | None = Field(default=None, description="Longest answer to ask.")
    max_total_tokens: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Longest prompt and answer together."
    )
    longer: Literal["clamp", "skip"] = Field(
        default="clamp", description="Shorten what is above these, or leave the request out."
    )
    exact_output: bool = Field(default=True, description="Forbid to stop earlier (min_tokens).")
    request_class: str = Field(default="", description="Scheduling class to send and judge by.")

    def mean_output(self) -> float:
        """Tokens of an answer, on average."""
        arrivals = self.replay().arrivals
        return sum(one.output_tokens for one in arrivals) / len(arrivals)

    def replay(self) -> Replay:
        """The requests to send, and how they differ from the trace's.

        Raises:
            SpecError: the trace is missing, a line is wrong, or all requests are too long.
        """
        found = Path(self.path)
        changed = found.stat().st_mtime_ns if found.is_file() else 0
        return _replay(self, changed)

    def sessions(self, material: Material) -> Iterator[Session]:
        """One session of one turn for each request, in the order of their times."""
        text = BlockText(material.vocabulary, material.dice, self.block_tokens)
        arrivals = enumerate(self.replay().arrivals)
        for number, one in itertools.islice(arrivals, *_slice(material)):
            prompt = text.prompt(number, one.blocks, one.prompt_tokens)
            least = one.output_tokens if self.exact_output else None
            turn = Turn(prompt, one.output_tokens, least)
            yield Session(number, (turn,), request_class=self.request_class)


Workload = Annotated[
    Independent | SharedPrefix | Conversation | PromptFile | TraceFile,
    Field(discriminator="type"),
]
