"""What one request comes down to: sequences to generate, and how to tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.gateway.openai.prompts import TokenizedPrompt
from toolkit.gateway.openai.responses import CachedTokens, CompletionUsage
from toolkit.gateway.openai.served import ServedModel
from toolkit.gateway.openai.tools.choice import NO_TOOLS, ToolUse
from toolkit.gateway.work import Final, Work


@dataclass(frozen=True, slots=True)
class Job:
    """A request that is ready to run.

    Args:
        id: What the answer is called.
        created: Seconds since 1970.
        model: Whom it is for.
        prompts: Of the request, at least one.
        choices: Answers to each prompt; ``works`` holds those of the first prompt first.
        works: One for each sequence.
        service_tier: The request class, if the request named one.
        stream: Whether pieces go out as they come.
        with_usage: Whether a stream ends with its usage.
        log_probs: Whether the chosen tokens' log probabilities are told.
        echo: Whether texts begin with their prompt.
        tools: How tools are used.
    """

    id: str
    created: int
    model: ServedModel
    prompts: tuple[TokenizedPrompt, ...]
    choices: int
    works: tuple[Work, ...]
    service_tier: str | None = None
    stream: bool = False
    with_usage: bool = False
    log_probs: bool = False
    echo: bool = False
    tools: ToolUse = NO_TOOLS

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts, each counted once."""
        return sum(len(prompt.tokens) for prompt in self.prompts)

    @property
    def max_tokens(self) -> int:
        """Tokens that all answers may have."""
        return sum(work.sampling.max_tokens or 0 for work in self.works)

    def prompt_of(self, index: int) -> TokenizedPrompt:
        """The prompt of the sequence ``index``."""
        return self.prompts[index // self.choices]

    def cached_tokens(self, finals: Sequence[Final | None]) -> int:
        """Prompt tokens that the cache held, each prompt as the least lucky answer found it.

        The others may have found what that one had just put there.
        """
        cached = 0
        for place, prompt in enumerate(self.prompts):
            own = finals[place * self.choices : (place + 1) * self.choices]
            found = min((final.usage.cached or 0 for final in own if final), default=0)
            cached += min(found, len(prompt.tokens))
        return cached

    def usage(self, finals: Sequence[Final | None]) -> CompletionUsage:
        """Tokens of the request; each prompt counts once."""
        completion = sum(final.usage.completion for final in finals if final)
        return CompletionUsage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=completion,
            total_tokens=self.prompt_tokens + completion,
            prompt_tokens_details=CachedTokens(cached_tokens=self.cached_tokens(finals)),
        )
