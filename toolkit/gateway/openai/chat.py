"""``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Any

from toolkit.gateway.openai.building import Plan
from toolkit.gateway.openai.endpoint import GeneratingEndpoint
from toolkit.gateway.openai.errors import invalid, unsupported
from toolkit.gateway.openai.frames import ChatFrames, Frames
from toolkit.gateway.openai.job import Job
from toolkit.gateway.openai.messages import as_template_input
from toolkit.gateway.openai.prompts import tokenized
from toolkit.gateway.openai.requests import ChatCompletionRequest
from toolkit.gateway.openai.sampling import guide_of
from toolkit.gateway.openai.served import ServedModel
from toolkit.gateway.openai.template import ChatTemplate
from toolkit.gateway.openai.tools.choice import tool_use
from toolkit.gateway.openai.whole import chat_completion
from toolkit.gateway.work import Final, GatewayError

_PARAM = "messages"


class ChatEndpoint(GeneratingEndpoint[ChatCompletionRequest]):
    """A conversation, written by the model's chat template."""

    request = ChatCompletionRequest

    async def plan(self, request: ChatCompletionRequest, model: ServedModel) -> Plan:
        """See :class:`GeneratingEndpoint`."""
        template = _template(model)
        tools = tool_use(request, model)
        guide = tools.guide or guide_of(request.response_format, guided=model.guided)
        text = template.render(
            as_template_input(request.messages, knows_developer="developer" in template.source),
            tools.definitions,
            _extra(request, template),
        )
        # The template has written the model's start tokens itself.
        prompt = await tokenized(
            model,
            text,
            special=False,
            param=_PARAM,
            long_text=self._service.settings.long_text,
        )
        return Plan(
            "chatcmpl",
            (prompt,),
            request.limit,
            log_probs=bool(request.logprobs),
            guide=guide,
            tools=tools,
        )

    def frames(self, job: Job) -> Frames:
        """See :class:`GeneratingEndpoint`."""
        return ChatFrames(job)

    def whole(self, job: Job, answers: list[Final]) -> bytes:
        """See :class:`GeneratingEndpoint`."""
        return chat_completion(job, answers)


def _template(model: ServedModel) -> ChatTemplate:
    if model.template is None:
        raise GatewayError(
            400,
            f"{model.name} has no chat template: use /v1/completions.",
            code="no_chat_template",
            param="model",
        )
    return model.template


def _extra(request: ChatCompletionRequest, template: ChatTemplate) -> dict[str, Any]:
    extra = dict(request.chat_template_kwargs or {})
    for name in ("messages", "tools", "documents", "add_generation_prompt"):
        if name in extra:
            raise invalid("chat_template_kwargs", f"{name} is not for it to set")
    if request.reasoning_effort is not None:
        if not template.uses("reasoning_effort"):
            raise unsupported(
                "reasoning_effort", "means nothing to this model: its chat template has none"
            )
        extra["reasoning_effort"] = request.reasoning_effort
    return extra
