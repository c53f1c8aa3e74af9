"""The bodies of answers, under OpenAI's names; extensions say so."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FinishReason = Literal["stop", "length", "tool_calls"]


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class ModelCard(Answer):
    """A model that requests may name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "toolkit"
    max_model_len: int = Field(description="Extension: tokens of prompt and answer together.")
    request_classes: list[str] = Field(
        description="Extension: what service_tier may say, the default first."
    )


class ModelList(Answer):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class CachedTokens(Answer):
    """What the prompt's tokens were."""

    cached_tokens: int = Field(description="Taken from the KV cache.")


class CompletionUsage(Answer):
    """Tokens of a request; each prompt counts once, whatever ``n``."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TokenLogprob(Answer):
    """The chosen token. ``top_logprobs`` is empty: engines report no other."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[None] = Field(default=[], max_length=0)


class ChatLogprobs(Answer):
    """Log probabilities of an answer."""

    content: list[TokenLogprob]
    refusal: None = None


class CalledFunction(Answer):
    """What is to be called; ``arguments`` is JSON as the model wrote it, perhaps not valid."""

    name: str
    arguments: str


class MessageToolCall(Answer):
    """A call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AnswerMessage(Answer):
    """What the assistant says."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: list[MessageToolCall] | None = None


class Ending(Answer):
    """How a sequence ended."""

    finish_reason: FinishReason
    stop_reason: str | None = Field(
        default=None, description="Extension: which of the request's stop texts was met."
    )
    cut_by: Literal["deadline"] | None = Field(
        default=None,
        description="Extension: with finish_reason length, that time and not tokens ran out.",
    )


class ChatChoice(Ending):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Answer):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    service_tier: str | None = Field(
        default=None, description="The request class, if the request named one."
    )


class TextLogprobs(Answer):
    """Log probabilities of a text, one of each for a token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: None = None
    text_offset: list[int]


class TextChoice(Ending):
    """One text."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None


class TextCompletion(Answer):
    """How a text goes on."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage
    service_tier: str | None = None


class FunctionDelta(Answer):
    """More of a call; the name comes once."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Answer):
    """More of the call with this index; its id comes once."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class MessageDelta(Answer):
    """What has come since the last chunk."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkEnding(Answer):
    """How a sequence ended, null until it has."""

    finish_reason: FinishReason | None
    stop_reason: str | None = None
    cut_by: Literal["deadline"] | None = None


class ChatChunkChoice(ChunkEnding):
    """More of one answer."""

    index: int
    delta: MessageDelta
    logprobs: ChatLogprobs | None = None


class ChatCompletionChunk(Answer):
    """One event of a streamed answer; the last one may have usage and no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | None = None
    service_tier: str | None = None


class TextChunkChoice(ChunkEnding):
    """More of one text."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None


class TextCompletionChunk(Answer):
    """One event of a streamed text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChunkChoice]
    usage: CompletionUsage | None = None
    service_tier: str | None = None


class Status(Answer):
    """Whether it is alive, or ready."""

    status: Literal["ok", "not ready"]
