"""The gateway's part of the deployment file: request classes, where it listens, what it allows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from toolkit.spec.section import Looks, Section, as_tuple, refuse
from toolkit.spec.units import Duration, PositiveDuration, Size

ClassName = Annotated[
    str,
    Field(pattern=r"^[a-z]([a-z0-9_-]{0,30}[a-z0-9])?$"),
    Looks("1 to 32 lower-case letters, digits, - or _, beginning with a letter"),
]
Host = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9._:%-]+$"), Looks("an address or a host name, without a port")
]


def _ports(address: str) -> str:
    numbers = address.rpartition(":")[2].split("/")
    if not all(1 <= int(number) <= 65535 for number in numbers):
        raise ValueError(f"names a port that does not exist: {address}")
    return address


Address = Annotated[
    str,
    Field(pattern=r"^([A-Za-z0-9._%-]+|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5}(/[0-9]{1,5})?$"),
    AfterValidator(_ports),
    Looks("host:port of a Triton's gRPC, with /port of its metrics if there is one"),
]


class RequestClass(Section):
    """One class of requests: its share, its latency targets and what it may take."""

    weight: int = Field(
        default=1, ge=1, le=1000, description="Share of the engine under load, against others."
    )
    ttft_ms: float | None = Field(
        default=None, gt=0, description="Target for the time to the first token, milliseconds."
    )
    itl_ms: float | None = Field(
        default=None, gt=0, description="Target for the time between tokens, milliseconds."
    )
    max_wait: PositiveDuration | None = Field(
        default=None,
        description="Longest wait for the engine; what cannot keep it is refused at once.",
    )
    max_queued: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="Requests that may wait. More are refused; but under latency_aware, keys with "
        "less than an equal part of them get places on top, up to as many again.",
    )
    max_running: int | None = Field(
        default=None, ge=1, description="Requests of this class in the engines at once."
    )


class Scheduling(Section):
    """Request classes; the first listed is the default one."""

    policy: Literal["latency_aware", "fcfs"] = Field(
        default="latency_aware",
        description="Order of waiting requests: by class, age and predicted work, or as they come.",
    )
    starvation_after: PositiveDuration = Field(
        default=30.0,
        description="A request that has waited so long goes before the younger ones of its class; "
        "over the classes such exceptions take a quarter of the work at most.",
    )
    prefix_affinity: bool = Field(
        default=True,
        description="Prefer the replica whose KV cache holds the beginning of the prompt.",
    )
    classes: dict[ClassName, RequestClass] = Field(
        default_factory=lambda: {
            "interactive": RequestClass(weight=8, ttft_ms=500),
            "batch": RequestClass(weight=1, ttft_ms=20_000),
        },
        min_length=1,
        description="Classes by name, at least one.",
    )


class Tls(Section):
    """Files, in PEM form, that the gateway serves HTTPS with."""

    certificate: str = Field(min_length=1, description="Certificate, with its chain.")
    key: str = Field(min_length=1, description="Private key.")


class Gateway(Section):
    """The OpenAI-compatible API in front of Triton."""

    enabled: bool = Field(default=True, description="Whether deploy starts it beside Triton.")
    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default=9000, ge=0, le=65535, description="TCP port; 0 picks a free one at every launch."
    )
    replicas: Annotated[tuple[Address, ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="Further Tritons that serve this deployment.",
        examples=[["gpu-2:8001/8002"]],
    )
    keys: str | None = Field(
        default=None,
        min_length=1,
        description="File of API keys (toolkit keys); without it, anybody who reaches it may ask.",
    )
    tls: Tls | None = Field(default=None, description="Serve HTTPS.")
    max_body: Annotated[Size, Field(ge=1024)] = Field(
        default=4 * 2**20, description="Largest request body."
    )
    max_buffer: Annotated[Size, Field(ge=1024)] = Field(
        default=256 * 2**10, description="Text kept for one client that reads too slowly."
    )
    stall_timeout: PositiveDuration = Field(
        default=30.0, description="A client that takes nothing for so long is let go."
    )
    drain_timeout: Duration = Field(
        default=30.0, description="Time for requests to end when the gateway stops."
    )
    access_log: bool = Field(
        default=True, description="One line of JSON a request, without its text."
    )
    cost_per_hour: float | None = Field(
        default=None,
        gt=0,
        description="What the machine costs an hour, in any currency, for cost per token.",
    )
    traces: str | None = Field(
        default=None,
        min_length=1,
        description="URL of an OpenTelemetry collector (OTLP over HTTP).",
        examples=["http://localhost:4318/v1/traces"],
    )

    @model_validator(mode="after")
    def _open_means_keys(self) -> Gateway:
        if self.host in ("127.0.0.1", "localhost", "::1") or self.keys:
            return self
        raise refuse(
            f"{self.host} opens the gateway to the network without API keys",
            fields=("host", "keys"),
            hint="write keys: FILE (toolkit keys add makes one), or listen on 127.0.0.1",
        )
