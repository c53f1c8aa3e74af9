"""What both kinds of request have in common, under OpenAI's names.

Unknown fields are ignored. Fields that OpenAI's API has and that this one cannot keep are
refused by name, unless they hold a value that changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

UNSUPPORTED = "unsupported"
"""pydantic's ``type`` of a refusal by name."""

MAX_CHOICES = 16
MAX_STOPS = 16
_INT64 = 2**63
_INT32 = 2**31


class Fields(BaseModel):
    """A part of a request: converts nothing (``"1"`` is not 1), ignores what it does not know."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True
    )


class Refused:
    """Annotates a field that may only hold null or one of the ``harmless`` values."""

    def __init__(self, why: str, *harmless: Any) -> None:
        self._why = why
        self._harmless = (None, *harmless)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        description = f"Anything else is refused: it {self._why}."
        return {"enum": list(self._harmless), "description": description}

    def _check(self, value: Any) -> Any:
        # Types count as well: True is not 1.
        if any(value == each and type(value) is type(each) for each in self._harmless):
            return value
        raise PydanticCustomError(UNSUPPORTED, "{why}", {"why": self._why})


def _not_empty(values: str | list[str] | None) -> tuple[str, ...]:
    if values is None:
        return ()
    return tuple(text for text in ([values] if isinstance(values, str) else values) if text)


StopText = Annotated[str, Field(max_length=256)]
Stop = Annotated[
    StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None,
    Field(description="Texts that end the answer and are not part of it."),
]


class StreamOptions(Fields):
    """How an answer is streamed."""

    include_usage: bool | None = Field(
        default=None, description="Count tokens in a last chunk without choices."
    )
    include_obfuscation: bool | None = Field(
        default=None, description="Without effect: chunks are never padded."
    )


class GenerationRequest(Fields):
    """What to generate and how."""

    model: str = Field(min_length=1, max_length=256, description="One of `/v1/models`.")
    stream: bool | None = Field(default=None, description="Server-sent events.")
    stream_options: StreamOptions | None = Field(
        default=None, description="Only together with `stream`."
    )
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES, description="Answers to each prompt.")
    max_tokens: int | None = Field(
        default=None, ge=1, lt=_INT32, description="Cut to what the model's context leaves."
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="1 if absent.")
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(
        default=None,
        ge=-_INT64,
        lt=_INT64,
        description="Answers after the first draw from seeds derived from it.",
    )
    stop: Stop = None
    user: str | None = Field(default=None, description="Without effect.")
    service_tier: str | None = Field(
        default=None,
        description="A request class of the deployment; `auto` and `default` mean the default.",
    )
    logit_bias: Annotated[Any, Refused("is something that engines do not offer", {})] = None
    top_k: int | None = Field(
        default=None, ge=-1, lt=_INT32, description="Extension: -1 and 0 mean all tokens."
    )
    min_tokens: int | None = Field(
        default=None, ge=0, lt=_INT32, description="Extension: no end before so many."
    )
    repetition_penalty: float | None = Field(default=None, gt=0, le=10, description="Extension.")
    ignore_eos: bool | None = Field(
        default=None, description="Extension: go on past the model's end token."
    )
    deadline_ms: int | None = Field(
        default=None,
        ge=1,
        le=86_400_000,
        description="Extension: longest time to the last token; what cannot keep it is refused.",
    )

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end the answer."""
        return _not_empty(self.stop)

    @property
    def choices(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def with_usage(self) -> bool:
        """Whether a streamed answer ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)
