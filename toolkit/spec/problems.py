"""What is wrong in a deployment file, where, and the one error that tells all of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from toolkit.errors import SpecError


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file, counted from 1, or a source without lines such as ``--set a.b=1``."""

    label: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.label}:{self.line}:{self.column}" if self.line else self.label


def shown(text: str, *, limit: int = 60, quotes: bool = False) -> str:
    """``text`` for one line of a message: cut short, in quotes if it would not show else."""
    if len(text) > limit:
        text = f"{text[: limit - 3]}..."
    return repr(text) if quotes or not text or not text.isprintable() else text


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend."""

    message: str
    place: Place
    hint: str | None = None

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.place}: {self.message}{hint}"


def refuse_all(problems: Iterable[Problem]) -> None:
    """Raise one error for all of ``problems``, in the order of the file; nothing if there are none.

    Raises:
        SpecError: the first problem; the others stand in its details.
    """
    ordered = sorted(set(problems), key=_order)
    if ordered:
        _refuse(ordered)


def _refuse(ordered: list[Problem]) -> NoReturn:
    first, *others = ordered
    raise SpecError(
        first.message,
        where=str(first.place),
        hint=first.hint,
        details=[str(problem) for problem in others],
    )


def _order(problem: Problem) -> tuple[bool, int, int, str, str]:
    place = problem.place
    return (place.line == 0, place.line, place.column, place.label, problem.message)
