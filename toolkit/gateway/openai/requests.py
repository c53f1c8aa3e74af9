"""The bodies of the two requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from toolkit.gateway.openai.fields import Fields, GenerationRequest, Refused
from toolkit.gateway.openai.messages import Message
from toolkit.gateway.openai.tool_fields import ToolChoice, ToolDefinition

MAX_PROMPTS = 64
_CHOSEN_ONLY = "is 0 at most: engines report the chosen token only"
_TEXT_MODEL = "is something that text models do not have"
_NOT_KEPT = "is something that nobody keeps here"


class TextFormat(Fields):
    """Free text."""

    type: Literal["text"]


class JsonFormat(Fields):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(Fields):
    """A schema with its name."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = Field(default=None, description="Without effect: it is always kept to.")


class SchemaFormat(Fields):
    """JSON that keeps to a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonFormat | SchemaFormat, Field(discriminator="type")]


class ChatCompletionRequest(GenerationRequest):
    """A conversation to go on with as the assistant."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(
        default=None, ge=1, lt=2**31, description="Goes before its older name, max_tokens."
    )
    logprobs: bool | None = Field(default=None, description="Of the chosen tokens.")
    top_logprobs: Annotated[Any, Refused(_CHOSEN_ONLY, 0)] = None
    response_format: ResponseFormat | None = Field(
        default=None, description="Anything but text needs a guided model."
    )
    tools: list[ToolDefinition] | None = Field(
        default=None,
        max_length=128,
        description="Only where the model's chat template knows tools.",
    )
    tool_choice: ToolChoice | None = Field(
        default=None, description="`required` and a name need a guided model."
    )
    parallel_tool_calls: bool | None = Field(
        default=None, description="false: calls after the first are left out."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, description="Extension: further variables of the model's chat template."
    )
    reasoning_effort: str | None = Field(
        default=None, description="Only where the model's chat template knows it."
    )
    metadata: dict[str, Any] | None = Field(default=None, description="Without effect.")
    safety_identifier: str | None = Field(default=None, description="Without effect.")
    prompt_cache_key: str | None = Field(
        default=None, description="Without effect: prefixes are found by their tokens."
    )
    store: Annotated[Any, Refused(_NOT_KEPT, False)] = None
    modalities: Annotated[Any, Refused(_TEXT_MODEL, ["text"])] = None
    audio: Annotated[Any, Refused(_TEXT_MODEL)] = None
    functions: Annotated[Any, Refused("is replaced by tools", [])] = None
    function_call: Annotated[Any, Refused("is replaced by tool_choice")] = None
    prediction: Annotated[Any, Refused("is not offered; the engine speculates by itself")] = None
    verbosity: Annotated[Any, Refused("is nothing that this model knows")] = None
    web_search_options: Annotated[Any, Refused("is not offered")] = None
    moderation: Annotated[Any, Refused("is not offered")] = None

    @property
    def limit(self) -> int | None:
        """Tokens that the answer may have."""
        return self.max_completion_tokens or self.max_tokens


TokenId = Annotated[int, Field(ge=0, lt=2**31)]
PromptText = Annotated[str, Field(min_length=1)]
Prompt = (
    PromptText
    | Annotated[list[PromptText], Field(min_length=1, max_length=MAX_PROMPTS)]
    | Annotated[list[TokenId], Field(min_length=1)]
    | Annotated[
        list[Annotated[list[TokenId], Field(min_length=1)]],
        Field(min_length=1, max_length=MAX_PROMPTS),
    ]
)


class CompletionRequest(GenerationRequest):
    """A text, or several, to go on with."""

    prompt: Prompt = Field(description="A text, token ids, or a list of either.")
    echo: bool | None = Field(
        default=None, description="Begin the answer with the prompt; not with logprobs."
    )
    logprobs: Annotated[Any, Refused(_CHOSEN_ONLY, 0)] = None
    suffix: Annotated[Any, Refused("is not offered: models here only go on", "")] = None
    best_of: int | None = Field(default=None, ge=1, description="Only what n says.")
