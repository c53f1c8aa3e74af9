"""A conversation as clients send it, and as chat templates read it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from toolkit.gateway.openai.fields import UNSUPPORTED, Fields, Refused
from toolkit.gateway.openai.tool_fields import ToolCall

_TEXT_ONLY = "takes parts of type text only"


class TextPart(Fields):
    """A part of a message."""

    type: Literal["text"]
    text: str

    @field_validator("type", mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        if value in ("image_url", "input_audio", "file"):
            raise PydanticCustomError(UNSUPPORTED, "{why}", {"why": _TEXT_ONLY})
        return value


Content = str | Annotated[list[TextPart], Field(min_length=1)]


class SystemMessage(Fields):
    """What the model is told to be."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Fields):
    """What the user says."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(Fields):
    """What the model said before; content, calls of tools, or both."""

    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    audio: Annotated[Any, Refused("is something that text models do not have")] = None
    function_call: Annotated[Any, Refused("is replaced by tool_calls")] = None


class ToolMessage(Fields):
    """What a tool returned."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


def as_template_input(
    messages: Sequence[SystemMessage | UserMessage | AssistantMessage | ToolMessage],
    *,
    knows_developer: bool,
) -> list[dict[str, Any]]:
    """What a chat template gets: plain dictionaries with text as content.

    Parts are joined by line ends. Templates want a call's arguments as an object. Few know the
    role ``developer``, which took the place of ``system``.
    """
    written = []
    for message in messages:
        role: str = message.role
        if role == "developer" and not knows_developer:
            role = "system"
        plain: dict[str, Any] = {"role": role, "content": _text(message.content)}
        if isinstance(message, ToolMessage):
            plain["tool_call_id"] = message.tool_call_id
        elif message.name is not None:
            plain["name"] = message.name
        if isinstance(message, AssistantMessage):
            if message.tool_calls:
                plain["tool_calls"] = [_call(call) for call in message.tool_calls]
            if message.content is None and message.refusal:
                plain["content"] = message.refusal
        written.append(plain)
    return written


def _text(content: str | list[TextPart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)


def _call(call: ToolCall) -> dict[str, Any]:
    arguments: Any = call.function.arguments
    # What is no JSON the template gets as the model wrote it.
    with contextlib.suppress(ValueError):
        arguments = json.loads(arguments or "{}")
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }
