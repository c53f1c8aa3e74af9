"""What can go wrong between the gateway and a replica, and what it means for the request."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Literal

from toolkit.gateway.work import GatewayError

Cause = Literal["connection", "busy", "server"]

_BUSY = ("queue is full", "queue full", "too many requests", "exceeds maximum queue size")
_LATE = ("deadline_ms: passed", "deadline exceeded", "request timeout expired")
_FIELD = re.compile(r"(?:request refused: )?(\w+): (.+)", re.DOTALL)
_PREFIX = re.compile(r"^(?:\[request id: [^\]]*\] |in ensemble '[^']*', )+")

_OPENAI_NAMES = {
    "text_input": "prompt",
    "stop_words": "stop",
    "guided_decoding_guide": "response_format",
    "guided_decoding_guide_type": "response_format",
    "return_log_probs": "logprobs",
    "lora_name": "model",
}


class ReplicaFailure(Exception):  # noqa: N818 - it may be the machine's, not the request's
    """A replica did not do what it should; another one may.

    ``connection``: nobody answers there. ``busy``: it has no place. ``server``: it failed.
    """

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message


def understand(message: str, inputs: Container[str]) -> GatewayError | ReplicaFailure:
    """What an error text of the server means.

    The deployment's model begins the text with the field at fault (``llm_serving.tensors``);
    that is the client's to mend, whichever replica is asked.
    """
    text = _PREFIX.sub("", message)
    lower = text.lower()
    if any(sign in lower for sign in _BUSY):
        return ReplicaFailure("busy", text)
    if any(sign in lower for sign in _LATE):
        return late(text)
    found = _FIELD.fullmatch(text)
    if found and found[1] in inputs:
        field = _OPENAI_NAMES.get(found[1], found[1])
        return GatewayError(400, f"{field}: {found[2]}", param=field)
    return ReplicaFailure("server", text)


def late(message: str) -> GatewayError:
    """The deadline passed before the first token."""
    return GatewayError(
        504, message, kind="timeout_error", code="deadline_exceeded", retry_after_s=1.0
    )
