"""What a request's tools mean for its prompt, its decoding and the reading of its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from toolkit.gateway.openai.errors import invalid, unsupported
from toolkit.gateway.openai.requests import ChatCompletionRequest
from toolkit.gateway.openai.served import ServedModel
from toolkit.gateway.openai.tool_fields import NamedTool, ToolDefinition
from toolkit.gateway.openai.tools.events import Parser
from toolkit.gateway.openai.tools.formats import ToolFormat
from toolkit.gateway.openai.tools.parser import CallParser, ForcedCall
from toolkit.gateway.openai.tools.special import SpecialTokens
from toolkit.gateway.work import Guide

_GUIDED_LIST = ToolFormat("hermes", "<tool_call>", separators="[],")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """How tools are used in one request.

    Args:
        definitions: For the template, None for none.
        guide: What forces the answer to be calls.
        parser: Makes a reader of one answer; None where no calls are looked for.
        special: Special tokens to take out of the text, where a call's marker is one of them.
        forced: The request has named the tool: that is no reason to finish, says OpenAI's API.
    """

    definitions: Sequence[dict[str, Any]] | None = None
    guide: Guide | None = None
    parser: Callable[[], Parser] | None = None
    special: SpecialTokens | None = None
    forced: bool = False


NO_TOOLS = ToolUse()


def tool_use(request: ChatCompletionRequest, model: ServedModel) -> ToolUse:
    """Check tools and ``tool_choice`` against the model.

    Raises:
        GatewayError: 400, the model, its template or its engine cannot do that.
    """
    tools, choice = request.tools or (), request.tool_choice
    if not tools:
        if choice not in (None, "none", "auto"):
            raise invalid("tool_choice", "there are no tools to choose from")
        return NO_TOOLS
    if choice == "none":
        return NO_TOOLS
    _check_template(model)
    definitions = [tool.as_template_input() for tool in tools]
    if choice in (None, "auto"):
        return _free(request, model, tools, definitions)
    if not model.guided:
        raise unsupported(
            "tool_choice",
            "can only be none or auto: this model is deployed without guided decoding",
        )
    if request.response_format is not None and request.response_format.type != "text":
        raise invalid("response_format", "the tool_choice decides what the answer is")
    if isinstance(choice, NamedTool):
        return _named(choice, tools, definitions)
    return _required(request, tools, definitions)


def _check_template(model: ServedModel) -> None:
    if model.template is None or not model.template.uses("tools"):
        raise unsupported("tools", f"mean nothing to {model.name}: its chat template has none")


def _free(
    request: ChatCompletionRequest,
    model: ServedModel,
    tools: Sequence[ToolDefinition],
    definitions: Sequence[dict[str, Any]],
) -> ToolUse:
    form = model.tools
    if form is None:
        raise unsupported(
            "tools",
            f"cannot be read from the answers of {model.name}: its chat template writes calls"
            " in a form that is not known here",
        )
    for place, tool in enumerate(tools):
        if tool.function.strict:
            raise unsupported(
                f"tools[{place}].function.strict",
                "can only be true where tool_choice demands a call of a guided model",
            )
    if request.response_format is not None and request.response_format.type != "text":
        raise invalid("response_format", "a guided answer could not call the tools")
    names = frozenset(tool.function.name for tool in tools)
    most = _most(request)
    return ToolUse(
        definitions, parser=lambda: CallParser(form, names, most=most), special=model.special
    )


def _named(
    choice: NamedTool, tools: Sequence[ToolDefinition], definitions: Sequence[dict[str, Any]]
) -> ToolUse:
    name = choice.function.name
    for tool in tools:
        if tool.function.name == name:
            guide = Guide("json_schema", orjson.dumps(_arguments(tool)).decode())
            return ToolUse(definitions, guide, lambda: ForcedCall(name), forced=True)
    raise invalid("tool_choice", f"no tool is called {name!r}")


def _required(
    request: ChatCompletionRequest,
    tools: Sequence[ToolDefinition],
    definitions: Sequence[dict[str, Any]],
) -> ToolUse:
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "arguments": _arguments(tool)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    most = _most(request)
    if most is not None:
        schema["maxItems"] = most
    names = frozenset(tool.function.name for tool in tools)
    return ToolUse(
        definitions,
        Guide("json_schema", orjson.dumps(schema).decode()),
        lambda: CallParser(_GUIDED_LIST, names, expected=True, most=most),
    )


def _most(request: ChatCompletionRequest) -> int | None:
    return 1 if request.parallel_tool_calls is False else None


def _arguments(tool: ToolDefinition) -> dict[str, Any]:
    return tool.function.parameters or {"type": "object", "properties": {}}
