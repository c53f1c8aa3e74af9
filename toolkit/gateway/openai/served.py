"""A model that clients may name, with all that turns their requests into prompts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.gateway.openai.template import ChatTemplate
from toolkit.gateway.openai.tools.formats import ToolFormat, tool_format
from toolkit.gateway.openai.tools.special import SpecialTokens
from toolkit.gateway.openai.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of ``/v1/models``.

    Args:
        name: What clients write.
        vocabulary: Its tokenizer.
        template: Its chat template; without one there is no chat.
        max_input_len: Tokens of one prompt.
        max_seq_len: Tokens of prompt and answer together.
        classes: Names of the request classes, the default one first.
        guided: Whether the engine keeps an answer to a schema.
        deployment: The model's name for the dispatcher, ``name`` if empty.
        adapter: LoRA adapter that this name stands for.
        tools: How it writes calls of tools; None if it knows none.
        special: Special tokens to take out of answers, where a call's marker is one of them.
        created: When it came to be, seconds since 1970.
    """

    name: str
    vocabulary: Vocabulary
    template: ChatTemplate | None
    max_input_len: int
    max_seq_len: int
    classes: tuple[str, ...] = ("default",)
    guided: bool = False
    deployment: str = ""
    adapter: str | None = None
    tools: ToolFormat | None = None
    special: SpecialTokens | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        name: str,
        max_input_len: int,
        max_seq_len: int,
        classes: tuple[str, ...] = ("default",),
        guided: bool = False,
        deployment: str = "",
        adapter: str | None = None,
    ) -> ServedModel:
        """Read tokenizer and chat template from a checkpoint or tokenizer folder.

        Raises:
            SpecError: a file is missing or malformed.
        """
        template, vocabulary = ChatTemplate.load(folder), Vocabulary(folder)
        form = tool_format(template)
        return cls(
            name=name,
            vocabulary=vocabulary,
            template=template,
            max_input_len=max_input_len,
            max_seq_len=max_seq_len,
            classes=classes,
            guided=guided,
            deployment=deployment,
            adapter=adapter,
            tools=form,
            special=_special(form, vocabulary),
        )

    @property
    def target(self) -> str:
        """The model's name for the dispatcher."""
        return self.deployment or self.name


def _special(form: ToolFormat | None, vocabulary: Vocabulary) -> SpecialTokens | None:
    if form is None or vocabulary.special.keys().isdisjoint(form.markers):
        return None
    return SpecialTokens(vocabulary.special.keys() - set(form.markers))
