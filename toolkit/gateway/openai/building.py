"""From a checked request to the sequences that are generated for it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.gateway.openai.errors import invalid
from toolkit.gateway.openai.fields import GenerationRequest
from toolkit.gateway.openai.job import Job
from toolkit.gateway.openai.prompts import TokenizedPrompt, answer_limit
from toolkit.gateway.openai.sampling import sampling_of
from toolkit.gateway.openai.served import ServedModel
from toolkit.gateway.openai.tools.choice import NO_TOOLS, ToolUse
from toolkit.gateway.work import Guide, Work


@dataclass(frozen=True, slots=True)
class Plan:
    """What the two kinds of request differ in.

    Args:
        kind: What an id of theirs begins with.
        prompts: At least one.
        limit: Tokens that each answer may have; all that the context leaves if None.
        log_probs: Whether the chosen tokens' log probabilities are wanted.
        guide: What each answer has to match.
        tools: How tools are used.
        echo: Whether each answer begins with its prompt.
    """

    kind: str
    prompts: tuple[TokenizedPrompt, ...]
    limit: int | None
    log_probs: bool = False
    guide: Guide | None = None
    tools: ToolUse = NO_TOOLS
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and how it is to be treated."""

    owner: str
    request_class: str
    trace_parent: str | None


def build_job(
    request: GenerationRequest, model: ServedModel, plan: Plan, asker: Asker, max_choices: int
) -> Job:
    """The job for ``request``.

    Raises:
        GatewayError: 400, it asks for too many answers, or fields contradict each other.
    """
    if request.choices * len(plan.prompts) > max_choices:
        raise invalid("n", f"all prompts together may have {max_choices} answers")
    identity = f"{plan.kind}-{secrets.token_hex(12)}"
    return Job(
        id=identity,
        created=int(time.time()),
        model=model,
        prompts=plan.prompts,
        choices=request.choices,
        works=tuple(_works(identity, request, model, plan, asker)),
        service_tier=asker.request_class if request.service_tier is not None else None,
        stream=bool(request.stream),
        with_usage=request.with_usage,
        log_probs=plan.log_probs,
        echo=plan.echo,
        tools=plan.tools,
    )


def _works(
    identity: str, request: GenerationRequest, model: ServedModel, plan: Plan, asker: Asker
) -> Iterator[Work]:
    deadline = request.deadline_ms
    for place, prompt in enumerate(plan.prompts):
        limit = answer_limit(model, prompt, plan.limit)
        for choice in range(request.choices):
            index = place * request.choices + choice
            yield Work(
                id=f"{identity}-{index}",
                model=model.target,
                prompt=prompt.text,
                tokens=prompt.tokens,
                sampling=sampling_of(
                    request,
                    limit=limit,
                    log_probs=plan.log_probs,
                    guide=plan.guide,
                    adapter=model.adapter,
                    choice=choice,
                ),
                request_class=asker.request_class,
                add_special_tokens=prompt.special,
                skip_special_tokens=plan.tools.special is None,
                deadline_s=None if deadline is None else deadline / 1000,
                owner=asker.owner,
                trace_parent=asker.trace_parent,
            )
