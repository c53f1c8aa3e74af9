"""In which form a model writes calls of tools, told by its chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Family = Literal["hermes", "llama", "mistral"]


class Template(Protocol):
    """What is asked of a chat template."""

    source: str

    def uses(self, name: str) -> bool:
        """Whether it looks at the variable ``name``."""


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How one family writes calls.

    Args:
        family: Hermes and Qwen, Llama 3, or Mistral.
        opening: Text before the first call.
        closing: Text after each call, empty if there is none.
        separators: Characters around calls that mean nothing.
        inner: Texts inside a call that may be special tokens, as ``opening`` may.
        bare: Whether an answer that begins with ``{`` is a call without ``opening``.
        named: Whether ``name[ARGS]{...}`` is a call as well.
    """

    family: Family
    opening: str
    closing: str = ""
    separators: str = ""
    inner: tuple[str, ...] = ()
    bare: bool = False
    named: bool = False

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts that have to reach the parser."""
        return tuple(text for text in (self.opening, self.closing, *self.inner) if text)


HERMES = ToolFormat("hermes", "<tool_call>", closing="</tool_call>")
LLAMA = ToolFormat("llama", "<|python_tag|>", separators=";", bare=True)
MISTRAL = ToolFormat(
    "mistral", "[TOOL_CALLS]", separators="[],", inner=("[ARGS]", "[CALL_ID]"), named=True
)


def tool_format(template: Template | None) -> ToolFormat | None:
    """The form that ``template`` teaches its model, None if it is none of these.

    Qwen3-Coder and its like write XML inside ``<tool_call>``: that is not read here.
    """
    if template is None or not template.uses("tools"):
        return None
    source = template.source
    if "[TOOL_CALLS]" in source:
        return MISTRAL
    if "<tool_call>" in source and "<function=" not in source:
        return HERMES
    if "<|python_tag|>" in source or '"parameters": dictionary' in source:
        return LLAMA
    return None
