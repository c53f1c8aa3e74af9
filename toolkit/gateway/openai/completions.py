"""``POST /v1/completions``."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.gateway.openai.building import Plan
from toolkit.gateway.openai.endpoint import GeneratingEndpoint
from toolkit.gateway.openai.errors import unsupported
from toolkit.gateway.openai.frames import Frames, TextFrames
from toolkit.gateway.openai.job import Job
from toolkit.gateway.openai.prompts import TokenizedPrompt, from_tokens, tokenized
from toolkit.gateway.openai.requests import CompletionRequest
from toolkit.gateway.openai.served import ServedModel
from toolkit.gateway.openai.whole import text_completion
from toolkit.gateway.work import Final

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""

_PARAM = "prompt"


class CompletionEndpoint(GeneratingEndpoint[CompletionRequest]):
    """Texts as they are."""

    request = CompletionRequest

    async def plan(self, request: CompletionRequest, model: ServedModel) -> Plan:
        """See :class:`GeneratingEndpoint`."""
        if request.best_of is not None and request.best_of != request.choices:
            raise unsupported("best_of", "can only be what n says: nothing is thrown away here")
        echo, log_probs = bool(request.echo), request.logprobs is not None
        if echo and log_probs:
            raise unsupported("echo", "cannot come with logprobs: engines report none of prompts")
        prompts = [await self._tokenized(model, each) for each in _prompts(request)]
        return Plan(
            "cmpl",
            tuple(prompts),
            request.max_tokens or DEFAULT_MAX_TOKENS,
            log_probs=log_probs,
            echo=echo,
        )

    def frames(self, job: Job) -> Frames:
        """See :class:`GeneratingEndpoint`."""
        return TextFrames(job)

    def whole(self, job: Job, answers: list[Final]) -> bytes:
        """See :class:`GeneratingEndpoint`."""
        return text_completion(job, answers)

    async def _tokenized(self, model: ServedModel, prompt: str | Sequence[int]) -> TokenizedPrompt:
        long_text = self._service.settings.long_text
        if isinstance(prompt, str):
            return await tokenized(model, prompt, special=True, param=_PARAM, long_text=long_text)
        return await from_tokens(model, prompt, param=_PARAM, long_text=long_text)


def _prompts(request: CompletionRequest) -> list[str | list[int]]:
    """The prompts one by one, whichever of the four forms they came in."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    tokens = [each for each in prompt if isinstance(each, int)]
    if tokens:
        return [tokens]
    return [each for each in prompt if not isinstance(each, int)]
