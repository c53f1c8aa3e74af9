"""Answers that are sent when they are complete."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from toolkit.gateway.openai.job import Job
from toolkit.gateway.openai.logprobs import TokenTexts
from toolkit.gateway.openai.reading import AnswerReader, plain_reason
from toolkit.gateway.openai.responses import (
    AnswerMessage,
    CalledFunction,
    ChatChoice,
    ChatCompletion,
    MessageToolCall,
    TextChoice,
    TextCompletion,
)
from toolkit.gateway.openai.tools.events import CallArguments, CallStart, Text
from toolkit.gateway.work import Final

_LEFT_OUT = ("service_tier", "stop_reason", "cut_by", "tool_calls")


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)


def chat_completion(job: Job, answers: list[Final]) -> bytes:
    """The body of ``/v1/chat/completions``."""
    answer = ChatCompletion(
        id=job.id,
        created=job.created,
        model=job.model.name,
        choices=[_chat_choice(job, index, answer) for index, answer in enumerate(answers)],
        usage=job.usage(answers),
        service_tier=job.service_tier,
    )
    return orjson.dumps(_without_absent(answer.model_dump()))


def text_completion(job: Job, answers: list[Final]) -> bytes:
    """The body of ``/v1/completions``."""
    answer = TextCompletion(
        id=job.id,
        created=job.created,
        model=job.model.name,
        choices=[_text_choice(job, index, answer) for index, answer in enumerate(answers)],
        usage=job.usage(answers),
        service_tier=job.service_tier,
    )
    return orjson.dumps(_without_absent(answer.model_dump()))


def _without_absent(answer: dict[str, Any]) -> dict[str, Any]:
    """Without the optional fields that OpenAI's API leaves out rather than sends as null."""
    places = [answer, *answer["choices"]]
    places += [choice["message"] for choice in answer["choices"] if "message" in choice]
    for place in places:
        for name in _LEFT_OUT:
            if name in place and place[name] is None:
                del place[name]
    return answer


def _chat_choice(job: Job, index: int, answer: Final) -> ChatChoice:
    reader = AnswerReader(job.tools)
    text: list[str] = []
    calls: dict[int, _Call] = {}
    for event in reader.read(answer):
        if isinstance(event, Text):
            text.append(event.text)
        elif isinstance(event, CallStart):
            calls[event.index] = _Call(event.id, event.name)
        elif isinstance(event, CallArguments):
            calls[event.index].arguments.append(event.text)
    content = "".join(text)
    message = AnswerMessage(
        content=content if content or not calls else None,
        tool_calls=[_written(call) for call in calls.values()] or None,
    )
    return ChatChoice(
        index=index,
        message=message,
        logprobs=TokenTexts(job.model.vocabulary).chat(answer) if job.log_probs else None,
        finish_reason=reader.finish_reason(answer),
        stop_reason=answer.stop_reason,
        cut_by="deadline" if answer.finish_reason == "deadline" else None,
    )


def _written(call: _Call) -> MessageToolCall:
    function = CalledFunction(name=call.name, arguments="".join(call.arguments))
    return MessageToolCall(id=call.id, function=function)


def _text_choice(job: Job, index: int, answer: Final) -> TextChoice:
    begin = job.prompt_of(index).text if job.echo else ""
    return TextChoice(
        index=index,
        text=begin + answer.text,
        logprobs=TokenTexts(job.model.vocabulary).text(answer) if job.log_probs else None,
        finish_reason=plain_reason(answer),
        stop_reason=answer.stop_reason,
        cut_by="deadline" if answer.finish_reason == "deadline" else None,
    )
