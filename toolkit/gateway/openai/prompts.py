"""Prompts as tokens, counted before anything is queued."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.gateway.openai.errors import invalid
from toolkit.gateway.openai.served import ServedModel
from toolkit.gateway.work import GatewayError

_USUAL_BYTES = 4
"""Of one token."""


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """A prompt that fits; ``special`` says whether its tokens hold those that are added."""

    text: str
    tokens: tuple[int, ...]
    special: bool


async def tokenized(
    model: ServedModel, text: str, *, special: bool, param: str, long_text: int
) -> TokenizedPrompt:
    """``text`` in tokens; a long one away from the event loop.

    Raises:
        GatewayError: 400, it is empty or too long.
    """
    size = len(text) if text.isascii() else len(text.encode())
    # No token covers more bytes than the longest one: what is longer need not be tokenized.
    if size > model.max_input_len * model.vocabulary.longest_token_bytes:
        raise GatewayError(
            400,
            f"The prompt has {size} bytes, too many for the {model.max_input_len} tokens that"
            f" {model.name} takes.",
            code="context_length_exceeded",
            param=param,
        )
    if size >= long_text:
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(None, _encode, model, text, special)
    else:
        tokens = _encode(model, text, special)
    return _checked(model, TokenizedPrompt(text, tokens, special), param)


async def from_tokens(
    model: ServedModel, tokens: Sequence[int], *, param: str, long_text: int
) -> TokenizedPrompt:
    """Token ids as a prompt. Engines are asked by text, so the ids have to survive the way.

    Raises:
        GatewayError: 400, they do not, or there are too many.
    """
    ids = tuple(tokens)
    if len(ids) > model.max_input_len:
        raise _too_many(model, len(ids), param)
    if max(ids) >= model.vocabulary.size:
        raise invalid(param, f"{model.name} has {model.vocabulary.size} tokens only")
    if len(ids) * _USUAL_BYTES >= long_text:
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(None, _decoded, model, ids)
    else:
        prompt = _decoded(model, ids)
    if prompt is not None:
        return _checked(model, prompt, param)
    raise invalid(param, "these tokens are not those that their text has; send the text")


def answer_limit(model: ServedModel, prompt: TokenizedPrompt, wanted: int | None) -> int:
    """Tokens that the answer may have: what is wanted, cut to what the context leaves."""
    room = model.max_seq_len - len(prompt.tokens)
    return room if wanted is None else min(wanted, room)


def _decoded(model: ServedModel, tokens: tuple[int, ...]) -> TokenizedPrompt | None:
    text = model.vocabulary.decode(tokens)
    for special in (False, True):
        if text and _encode(model, text, special) == tokens:
            return TokenizedPrompt(text, tokens, special)
    return None


def _encode(model: ServedModel, text: str, special: bool) -> tuple[int, ...]:
    return model.vocabulary.encode(text, special=special)


def _checked(model: ServedModel, prompt: TokenizedPrompt, param: str) -> TokenizedPrompt:
    count = len(prompt.tokens)
    if not prompt.text or not count:
        raise invalid(param, "the prompt is empty")
    if count > model.max_input_len or count >= model.max_seq_len:
        raise _too_many(model, count, param)
    return prompt


def _too_many(model: ServedModel, count: int, param: str) -> GatewayError:
    most = min(model.max_input_len, model.max_seq_len - 1)
    return GatewayError(
        400,
        f"This model's maximum prompt length is {most} tokens"
        f" (context: {model.max_seq_len}), but yours has {count} tokens.",
        code="context_length_exceeded",
        param=param,
    )
