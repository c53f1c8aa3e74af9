"""Flags of ``trtllm-build``."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from toolkit.errors import UnsupportedError
from toolkit.releases.entries import Entry
from toolkit.releases.values import Kind, problem


class BuildFlag(Entry):
    """One flag.

    Attributes:
        name: Without the dashes.
        kind: ``bool`` is a switch without a value; enable/disable flags are choices.
        default: What upstream takes if the flag is absent; None if that depends on others.
        clashes_with: Flags that may not be given at the same time, as ``name`` or ``name=value``.
        refused_on: Compute capabilities on which turning it on is refused.
        deprecated: What to use instead.
    """

    name: str
    group: Literal["general", "logits", "lora", "speculation", "auto_parallel", "plugins"]
    kind: Kind
    default: JsonValue = None
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    clashes_with: tuple[str, ...] = ()
    refused_on: tuple[tuple[int, int], ...] = ()
    deprecated: str | None = None
    meaning: str

    @property
    def option(self) -> str:
        """As it is written on the command line."""
        return f"--{self.name}"

    def problem(self, value: JsonValue) -> str | None:
        """Why the flag does not take ``value``; None if it does."""
        return problem(self.kind, value, choices=self.choices)

    def arguments(self, value: JsonValue) -> tuple[str, ...]:
        """The command line's words that set the flag to ``value``.

        Raises:
            UnsupportedError: it does not take that value.
        """
        wrong = self.problem(value)
        if wrong:
            raise UnsupportedError(f"{self.option} {wrong}", where="trtllm-build")
        if self.kind == "bool":
            return (self.option,) if value else ()
        if isinstance(value, list):
            return (self.option, *(str(item) for item in value))
        return (self.option, str(value))
