"""The deployment file as types: what a user may write, with units, defaults and limits.

Only what the file alone can tell is checked here; what depends on the model, the GPU or the
release is decided by the rooms that know them. Every model is frozen, refuses unknown keys and
converts nothing: ``true`` is not 1, ``"32"`` is not 32, and no number is infinite or NaN.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from toolkit.spec.engine import Batching as Batching
from toolkit.spec.engine import Engine as Engine
from toolkit.spec.engine import KvCache as KvCache
from toolkit.spec.engine import Limits as Limits
from toolkit.spec.engine import Parallelism as Parallelism
from toolkit.spec.engine import Release as Release
from toolkit.spec.engine import Runtime as Runtime
from toolkit.spec.gateway import Gateway as Gateway
from toolkit.spec.gateway import Host
from toolkit.spec.gateway import RequestClass as RequestClass
from toolkit.spec.gateway import Scheduling as Scheduling
from toolkit.spec.gateway import Tls as Tls
from toolkit.spec.section import Looks, as_tuple, refuse
from toolkit.spec.section import Names as Names
from toolkit.spec.section import Section as Section
from toolkit.spec.speculation import MTP as MTP
from toolkit.spec.speculation import DraftModel as DraftModel
from toolkit.spec.speculation import DraftSource as DraftSource
from toolkit.spec.speculation import Eagle as Eagle
from toolkit.spec.speculation import Eagle3 as Eagle3
from toolkit.spec.speculation import Lookahead as Lookahead
from toolkit.spec.speculation import Medusa as Medusa
from toolkit.spec.speculation import NGram as NGram
from toolkit.spec.speculation import Speculation as Speculation
from toolkit.spec.units import Duration, PositiveDuration

WeightFormat = Literal["none", "auto", "fp8", "int4_awq", "w4a8_awq", "int8_sq", "nvfp4"]
KvFormat = Literal["auto", "none", "fp8", "int8", "nvfp4"]


def _distinct(value: tuple[int, ...]) -> tuple[int, ...]:
    repeated = sorted({item for item in value if value.count(item) > 1})
    if repeated:
        raise ValueError(f"lists {', '.join(map(str, repeated))} more than once")
    return value


Index = Annotated[int, Field(ge=0, le=1023)]
ServiceName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"),
    Looks("1 to 63 lower-case letters, digits, - or _, with a letter or digit at both ends"),
]


class ModelSource(Section):
    """Where the weights come from."""

    source: str = Field(
        min_length=1,
        description="hf://owner/name@revision, a directory, a .gguf file, or sample:NAME.",
        examples=["hf://meta-llama/Llama-3.1-8B-Instruct@main", "./model", "sample:smollm2-135m"],
    )
    allow_pickle: Names = Field(
        default=(), description="Pickle files that may be loaded, by name; all others are refused."
    )


class Calibration(Section):
    """Text that post-training quantization sees to measure activation ranges."""

    source: str = Field(
        default="builtin",
        description="builtin (ships with the package), a .jsonl or .txt file, or a data set "
        "name that ModelOpt knows (cnn_dailymail).",
    )
    samples: int = Field(default=128, ge=1, le=100_000, description="Texts to run through.")
    max_length: int = Field(default=512, ge=16, le=131_072, description="Tokens per sample.")
    batch_size: int = Field(default=8, ge=1, le=1024, description="Texts in one forward pass.")


class Acceptance(Section):
    """What the quantized checkpoint may lose against the original on held-out text.

    A limit that is left out is set by the format's own default.
    """

    perplexity_increase: float | None = Field(
        default=None, gt=0, description="Relative: 0.05 accepts five percent more."
    )
    kl_divergence: float | None = Field(default=None, gt=0, description="Mean, in nats per token.")
    top1_agreement: float | None = Field(
        default=None, gt=0, le=1, description="Share of positions with the same most likely token."
    )


class Quantization(Section):
    """Number formats of weights and KV cache, and how they are found and judged."""

    weights: WeightFormat = Field(
        default="none",
        description="none keeps the checkpoint's own format; auto takes the best that the GPU "
        "and the runtime support.",
    )
    kv_cache: KvFormat = Field(default="none", description="none keeps the activations' format.")
    block_size: int | None = Field(
        default=None, ge=16, le=1024, description="AWQ block; chosen from layer widths if absent."
    )
    exclude: Names = Field(
        default=("lm_head",), description="Module name patterns that keep full precision."
    )
    calibration: Calibration = Field(
        default=Calibration(), description="Text that the formats are calibrated with."
    )
    accept: Acceptance = Field(
        default=Acceptance(), description="Limits past which the build fails."
    )


class Ports(Section):
    """TCP ports of the server; 0 picks a free one at every launch."""

    http: int = Field(default=8000, ge=0, le=65535, description="HTTP and REST.")
    grpc: int = Field(default=8001, ge=0, le=65535, description="gRPC.")
    metrics: int = Field(default=8002, ge=0, le=65535, description="Prometheus metrics.")

    @model_validator(mode="after")
    def _different(self) -> Ports:
        used: dict[int, str] = {}
        for field, port in (("http", self.http), ("grpc", self.grpc), ("metrics", self.metrics)):
            if port and port in used:
                other = used[port]
                raise refuse(
                    f"{other} and {field} both use port {port}",
                    fields=(field, other),
                    hint="give each its own port, or 0 for a free one",
                )
            used[port] = field
        return self


Gpus = Annotated[
    tuple[Index, ...],
    BeforeValidator(as_tuple),
    AfterValidator(_distinct),
    Field(json_schema_extra={"uniqueItems": True}),
]


def _pinned(value: str) -> str:
    if value.endswith(":latest"):
        raise ValueError("names no release: latest changes under a running deployment")
    return value


Image = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][A-Za-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})$"
    ),
    AfterValidator(_pinned),
    Looks("a container image with its tag or digest"),
]


class Serving(Section):
    """How Triton is launched."""

    launcher: Literal["auto", "binary", "container"] = Field(
        default="auto", description="A tritonserver binary on this machine, or a container."
    )
    image: Image | None = Field(
        default=None,
        description="Container image with its tag or digest; that of engine.release if absent.",
        examples=["nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"],
    )
    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    gpu: str | None = Field(
        default=None,
        min_length=1,
        description="Model of GPU that the deployment is for; whatever the machine has if absent.",
        examples=["H100", "A100-80"],
    )
    gpus: Gpus = Field(
        default=(0,), description="GPU numbers; ignored by the CPU runtime.", examples=[[0, 1]]
    )
    replicas: int = Field(
        default=1, ge=1, le=64, description="Copies of the engine; each has its own GPUs."
    )
    ports: Ports = Field(default=Ports(), description="TCP ports.")
    ready_timeout: PositiveDuration = Field(default=300.0, description="Deadline for readiness.")
    drain_timeout: Duration = Field(default=30.0, description="Time for requests to end at stop.")
    default_deadline: PositiveDuration | None = Field(
        default=None,
        description="Longest time a request may take, unless it says so itself.",
    )


class Deployment(Section):
    """One deployment: everything `build`, `deploy` and `bench` need to know."""

    name: ServiceName = Field(description="Names the ensemble that clients call.")
    model: ModelSource = Field(description="The model to deploy.")
    quantization: Quantization = Field(
        default=Quantization(), description="Number formats, calibration and accuracy limits."
    )
    engine: Engine = Field(default=Engine(), description="The runtime and what it is built for.")
    serving: Serving = Field(default=Serving(), description="How the server is launched.")
    scheduling: Scheduling = Field(
        default_factory=Scheduling, description="Request classes and their latency targets."
    )
    gateway: Gateway = Field(
        default=Gateway(), description="The OpenAI-compatible API in front of the server."
    )

    @model_validator(mode="after")
    def _name_is_free(self) -> Deployment:
        if self.name in RESERVED_NAMES:
            raise refuse(
                f"the name {self.name!r} is taken by a model inside the repository",
                fields=("name",),
                hint=f"choose another, such as {self.name}-service",
            )
        return self

    @model_validator(mode="after")
    def _gateway_has_a_port(self) -> Deployment:
        ports, port = self.serving.ports, self.gateway.port
        taken = {ports.http: "http", ports.grpc: "grpc", ports.metrics: "metrics"}
        if not self.gateway.enabled or not port or port not in taken:
            return self
        raise refuse(
            f"gateway and {taken[port]} both use port {port}",
            fields=("gateway.port", f"serving.ports.{taken[port]}"),
            hint="give each its own port, or 0 for a free one",
        )

    @model_validator(mode="after")
    def _every_replica_has_gpus(self) -> Deployment:
        parallelism, serving = self.engine.parallelism, self.serving
        each = parallelism.tensor * parallelism.pipeline
        # "auto" is the CPU runtime unless a GPU is named or the model is split over several.
        on_gpus = self.engine.runtime in ("tensorrt", "pytorch") or (
            self.engine.runtime == "auto" and (each > 1 or serving.gpu is not None)
        )
        needed = each * serving.replicas
        if not on_gpus or needed == len(serving.gpus):
            return self
        raise refuse(
            f"{needed} {'GPU is' if needed == 1 else 'GPUs are'} needed (tensor "
            f"{parallelism.tensor} x pipeline {parallelism.pipeline} x replicas "
            f"{serving.replicas}), but serving.gpus lists {len(serving.gpus)}",
            fields=(
                "serving.gpus",
                "serving.replicas",
                "engine.parallelism.tensor",
                "engine.parallelism.pipeline",
            ),
            hint="list exactly the GPUs that the replicas use, or change engine.parallelism "
            "or serving.replicas",
        )


RESERVED_NAMES = frozenset(
    {
        "preprocessing",
        "postprocessing",
        "tensorrt_llm",
        "tensorrt_llm_bls",
        "tensorrt_llm_draft",
    }
)
"""Triton models that a repository holds beside the ensemble."""
