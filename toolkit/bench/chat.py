"""Conversations as one prompt: with the model's own chat template, or plainly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from toolkit.errors import SpecError


@dataclass(frozen=True, slots=True)
class Message:
    """One part of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


class ChatFormat(Protocol):
    """Writes a conversation so that the model goes on as the assistant."""

    name: str

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text to complete."""


class PlainChat:
    """Lines that begin with who speaks."""

    name = "plain"

    def prompt(self, messages: Sequence[Message]) -> str:
        """``User: ...``, ``Assistant: ...``, ending at ``Assistant:``."""
        lines = [
            f"{one.role.capitalize()}: {one.content.strip()}"
            if one.role != "system"
            else one.content
            for one in messages
        ]
        return "\n".join([*lines, "Assistant:"])


class TemplateChat:
    """The chat template that came with the checkpoint.

    Args:
        directory: Holds ``chat_template.jinja``, or ``tokenizer_config.json`` with one.

    Raises:
        SpecError: neither is there, or it is not a valid template.
    """

    name = "chat template"

    def __init__(self, directory: Path) -> None:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._directory = directory
        config = _tokenizer_config(directory)
        file = directory / "chat_template.jinja"
        source = file.read_text() if file.is_file() else config.get("chat_template")
        if not isinstance(source, str):
            raise SpecError("no chat template", where=str(directory))
        # A template is somebody else's program: it runs in a sandbox.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise SpecError(f"invalid chat template: {error}", where=str(directory)) from error
        self._special = {
            name: _token(config.get(name)) for name in ("bos_token", "eos_token", "pad_token")
        }

    def __reduce__(self) -> tuple[type[TemplateChat], tuple[Path]]:
        # Another process reads the files again: a template cannot be sent.
        return TemplateChat, (self._directory,)

    def prompt(self, messages: Sequence[Message]) -> str:
        """The rendered template, ending where the assistant begins."""
        plain = [{"role": one.role, "content": one.content} for one in messages]
        return self._template.render(messages=plain, add_generation_prompt=True, **self._special)


def chat_format(tokenizer: Path | None) -> ChatFormat:
    """The chat template beside ``tokenizer`` (a directory or file) where there is one."""
    if tokenizer is None:
        return PlainChat()
    directory = tokenizer if tokenizer.is_dir() else tokenizer.parent
    has_template = (directory / "chat_template.jinja").is_file() or isinstance(
        _tokenizer_config(directory).get("chat_template"), str
    )
    return TemplateChat(directory) if has_template else PlainChat()


def _tokenizer_config(directory: Path) -> dict[str, Any]:
    file = directory / "tokenizer_config.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise SpecError(f"not JSON: {error}", where=str(file)) from error
    return found if isinstance(found, dict) else {}


def _token(value: Any) -> str:
    return str(value.get("content", "")) if isinstance(value, dict) else str(value or "")


def _refuse(message: str) -> None:
    raise SpecError(f"the chat template refuses the conversation: {message}")
