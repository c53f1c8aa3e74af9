"""What a check is: a name, what it proves, what to do when it fails, and how it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from toolkit.serving import probe
from toolkit.serving.metrics import Load
from toolkit.serving.validate.client import Answer, Client, Timeout
from toolkit.spec.models import Deployment

Outcome = Literal["passed", "failed", "skipped"]


class Failed(Exception):  # noqa: N818 - the outcome of a check
    """The check found what it looks for; the text says what."""


class Skipped(Exception):  # noqa: N818 - the outcome of a check
    """The deployment turns off what the check is about; the text says which field."""


@dataclass(frozen=True)
class Reference:
    """What greedy decoding of the checkpoint gives for ``prompt``: tokens and their text."""

    prompt: str
    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Context:
    """The server under test and what it was deployed as.

    ``references`` come from whoever has the checkpoint at hand, with ``tokenize`` to turn the
    served text into tokens. ``numeric_share`` is the share of prompts whose text may change in
    a batch after a common beginning: on GPUs the shape of a batch changes rounding.
    ``repository`` is what the server was started from, if it is at hand.
    """

    deployment: Deployment
    client: Client
    references: tuple[Reference, ...] = ()
    tokenize: Callable[[str], Sequence[int]] | None = None
    minimum_agreement: float = 1.0
    numeric_share: float = 0.0
    repository: Path | None = None

    def ask(self, prompt: str, max_tokens: int, **values: object) -> Answer:
        """A request that has to succeed.

        Raises:
            Failed: it was refused.
        """
        answer = self.client.ask(prompt, max_tokens, **values)
        if answer.error is not None:
            raise Failed(f"the prompt {prompt[:40]!r} was refused: {answer.error}")
        return answer

    def load(self) -> Load:
        """What the engine is doing.

        Raises:
            Failed: there are no metrics.
        """
        found = probe.scrape(self.client.endpoints, 5.0)
        if found is None:
            raise Failed(f"no metrics at {self.client.endpoints.metrics_url}")
        return Load.of(found)

    def wait_for(self, condition: Callable[[Load], bool], seconds: float) -> bool:
        """Whether the engine's load meets ``condition`` within ``seconds``."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition(self.load()):
                return True
            time.sleep(0.1)
        return False

    def wait_idle(self, seconds: float) -> bool:
        """Whether nothing runs or waits within ``seconds``."""
        return self.wait_for(lambda load: not load.running and not load.waiting, seconds)


@dataclass(frozen=True)
class Check:
    """``run`` returns a line of evidence, or raises :class:`Failed` or :class:`Skipped`."""

    name: str
    proves: str
    hint: str
    run: Callable[[Context], str]


@dataclass(frozen=True)
class Result:
    """What became of one check. ``evidence`` is what was seen, or why it failed or was skipped."""

    name: str
    proves: str
    outcome: Outcome
    evidence: str
    hint: str
    seconds: float


def perform(check: Check, context: Context) -> Result:
    """Run one check; whatever it raises becomes a result."""
    started = time.monotonic()
    outcome: Outcome = "passed"
    try:
        evidence = check.run(context)
    except Skipped as reason:
        outcome, evidence = "skipped", str(reason)
    except Failed as reason:
        outcome, evidence = "failed", str(reason)
    except Timeout:
        outcome, evidence = "failed", "a request did not end in time"
    except Exception as error:
        outcome, evidence = "failed", f"{type(error).__name__}: {error}"
    seconds = round(time.monotonic() - started, 3)
    return Result(check.name, check.proves, outcome, evidence, check.hint, seconds)
