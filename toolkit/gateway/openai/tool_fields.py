"""Tools in a request: their definitions, which to choose, and calls made before."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from toolkit.gateway.openai.fields import Fields

ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]


class FunctionDefinition(Fields):
    """A function that the model may call."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(
        default=None, description="JSON schema of its arguments; none if absent."
    )
    strict: bool | None = Field(
        default=None,
        description="true only where a guided model is told to call (tool_choice).",
    )


class ToolDefinition(Fields):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: FunctionDefinition

    def as_template_input(self) -> dict[str, Any]:
        """What chat templates expect, a function without parameters spelled out."""
        function: dict[str, Any] = {"name": self.function.name}
        if self.function.description is not None:
            function["description"] = self.function.description
        function["parameters"] = self.function.parameters or {"type": "object", "properties": {}}
        return {"type": "function", "function": function}


class FunctionName(Fields):
    """Names a function."""

    name: ToolName


class NamedTool(Fields):
    """The one tool that has to be called."""

    type: Literal["function"]
    function: FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class FunctionCall(Fields):
    """What was called; ``arguments`` is JSON as the model wrote it."""

    name: str
    arguments: str


class ToolCall(Fields):
    """A call that the model made before."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
