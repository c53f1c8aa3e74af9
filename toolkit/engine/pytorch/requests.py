"""What requests may ask of a deployment, for the model to refuse the rest by name."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.spec.models import Engine


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What the LLM API takes of a request.

    Attributes:
        penalties: Repetition, presence and frequency penalties. With speculation the LLM API
            refuses them, unless a prototype switch of its newest releases is set, which it is not.
        guided: A JSON schema, regex or grammar.
        adapters: Names of LoRA adapters; the number that the LLM API wants is the place from 1.
    """

    penalties: bool
    guided: bool
    adapters: tuple[str, ...]


def request_limits(engine: Engine) -> RequestLimits:
    """The limits that follow from the deployment's engine section."""
    return RequestLimits(
        penalties=engine.speculation is None,
        guided=engine.guided_decoding is not None,
        adapters=tuple(engine.lora.adapters) if engine.lora else (),
    )
