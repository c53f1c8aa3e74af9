"""The deployment file as types: what a user may write, with units, defaults and limits.

Only what one field alone can tell is checked here; what depends on the model, the GPU or the
release is decided by the rooms that know them. Every model is frozen and refuses unknown keys.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from toolkit.spec.units import Duration, Size

WeightFormat = Literal[
    "none", "auto", "fp8", "int4_awq", "w4a8_awq", "int8_sq", "nvfp4"
]
KvFormat = Literal["auto", "none", "fp8", "int8", "nvfp4"]
Runtime = Literal["auto", "tensorrt", "pytorch", "openvino"]


class Section(BaseModel):
    """A part of the deployment file: immutable, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSource(Section):
    """Where the weights come from."""

    source: str = Field(
        min_length=1,
        description="hf://owner/name@revision, a directory, a .gguf file, or sample:NAME.",
        examples=["hf://meta-llama/Llama-3.1-8B-Instruct@main", "./model", "sample:smollm2-135m"],
    )
    allow_pickle: tuple[str, ...] = Field(
        default=(), description="Pickle files that may be loaded, by name; all others are refused."
    )


class Calibration(Section):
    """Text that post-training quantization sees to measure activation ranges."""

    source: str = Field(
        default="builtin",
        description="builtin (ships with the package), a .jsonl or .txt file, or a data set "
        "name that ModelOpt knows (cnn_dailymail).",
    )
    samples: int = Field(default=128, ge=1, le=100_000)
    max_length: int = Field(default=512, ge=16, le=131_072, description="Tokens per sample.")
    batch_size: int = Field(default=8, ge=1, le=1024)


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

    weights: WeightFormat = "none"
    kv_cache: KvFormat = "none"
    block_size: int | None = Field(
        default=None, ge=16, le=1024, description="AWQ block; chosen from layer widths if absent."
    )
    exclude: tuple[str, ...] = Field(
        default=("lm_head",), description="Module name patterns that keep full precision."
    )
    calibration: Calibration = Calibration()
    accept: Acceptance = Acceptance()


class Limits(Section):
    """What the engine is built for, in requests and tokens."""

    max_batch_size: int = Field(default=64, ge=1, le=4096, description="Requests in flight.")
    max_input_len: int = Field(default=3072, ge=1, description="Tokens of one prompt.")
    max_seq_len: int = Field(default=4096, ge=2, description="Prompt and output of one request.")
    max_num_tokens: int = Field(
        default=2048, ge=1, description="Tokens of all requests in one engine step."
    )

    @model_validator(mode="after")
    def _prompt_fits_sequence(self) -> Limits:
        if self.max_input_len >= self.max_seq_len:
            raise ValueError(
                f"max_input_len ({self.max_input_len}) must be below max_seq_len "
                f"({self.max_seq_len}), or no token could be generated"
            )
        return self


class Parallelism(Section):
    """How one replica is spread over GPUs."""

    tensor: int = Field(default=1, ge=1, le=64)
    pipeline: int = Field(default=1, ge=1, le=64)


class KvCache(Section):
    """The paged KV cache."""

    reuse: bool = Field(default=True, description="Keep blocks of finished prompts for new ones.")
    free_memory_fraction: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of the memory left after the weights that the pool may take.",
    )
    size: Size | None = Field(
        default=None, description="Fixed pool size; on CPU the default is what the limits need."
    )
    host_offload: Size = Field(default=0, description="Host memory for evicted blocks.")
    tokens_per_block: int = Field(default=32, ge=8, le=1024)


class Batching(Section):
    """How requests share the engine."""

    policy: Literal["guaranteed_no_evict", "max_utilization", "static_batch"] = Field(
        default="guaranteed_no_evict",
        description="Admit only what is sure to finish, or fill up and preempt under pressure.",
    )
    chunked_prefill: bool = Field(default=True, description="Split long prompts over steps.")
    max_queue_size: int = Field(
        default=256, ge=1, description="Requests that may wait; more are refused, retryably."
    )
    stream_interval: int = Field(
        default=1, ge=1, le=64, description="Engine steps between two streamed responses."
    )


class DraftSource(Section):
    """The draft model: given, or derived from the target."""

    source: str | None = Field(default=None, description="Like model.source.")
    derive_layers: int | None = Field(
        default=None, ge=1, description="Keep this many of the target's layers and distill."
    )
    distill_steps: int = Field(default=200, ge=0, le=100_000)

    @model_validator(mode="after")
    def _one_origin(self) -> DraftSource:
        if (self.source is None) == (self.derive_layers is None):
            raise ValueError("give either source or derive_layers")
        return self


class DraftModel(Section):
    """A smaller model of the same vocabulary proposes tokens, the target verifies them."""

    method: Literal["draft_model"] = "draft_model"
    draft: DraftSource
    max_draft_len: int = Field(default=5, ge=1, le=32)


class NGram(Section):
    """Tokens that followed the same n-gram earlier in the prompt or output are proposed."""

    method: Literal["ngram"] = "ngram"
    max_draft_len: int = Field(default=5, ge=1, le=32)
    max_matching_ngram_size: int = Field(default=3, ge=1, le=16)


class Eagle3(Section):
    """An EAGLE-3 head trained for the target proposes tokens."""

    method: Literal["eagle3"] = "eagle3"
    source: str
    max_draft_len: int = Field(default=4, ge=1, le=32)


class Medusa(Section):
    """Medusa heads of the checkpoint propose a tree of tokens (TensorRT engines only)."""

    method: Literal["medusa"] = "medusa"
    source: str
    max_draft_len: int = Field(default=63, ge=1, le=256)


class Lookahead(Section):
    """Lookahead decoding without a second model (TensorRT engines only)."""

    method: Literal["lookahead"] = "lookahead"
    window_size: int = Field(default=4, ge=1, le=32)
    ngram_size: int = Field(default=3, ge=1, le=32)
    verification_set_size: int = Field(default=4, ge=1, le=32)


class MTP(Section):
    """The checkpoint's own multi-token-prediction layers propose tokens (DeepSeek)."""

    method: Literal["mtp"] = "mtp"
    num_nextn_predict_layers: int = Field(default=1, ge=1, le=8)


Speculation = Annotated[
    DraftModel | NGram | Eagle3 | Medusa | Lookahead | MTP, Field(discriminator="method")
]


class Engine(Section):
    """The runtime and what it is built for."""

    runtime: Runtime = "auto"
    release: str | None = Field(
        default=None, description="TensorRT-LLM release; the newest supported one if absent."
    )
    limits: Limits = Limits()
    parallelism: Parallelism = Parallelism()
    kv_cache: KvCache = KvCache()
    batching: Batching = Batching()
    speculation: Speculation | None = None
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="CPU runtime: compute threads; all cores if absent."
    )


class Ports(Section):
    """TCP ports of the server; 0 picks a free one."""

    http: int = Field(default=8000, ge=0, le=65535)
    grpc: int = Field(default=8001, ge=0, le=65535)
    metrics: int = Field(default=8002, ge=0, le=65535)

    @model_validator(mode="after")
    def _distinct(self) -> Ports:
        chosen = [port for port in (self.http, self.grpc, self.metrics) if port]
        if len(chosen) != len(set(chosen)):
            raise ValueError("http, grpc and metrics need different ports")
        return self


class Serving(Section):
    """How Triton is launched."""

    launcher: Literal["auto", "binary", "container"] = "auto"
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    gpus: tuple[int, ...] = (0,)
    replicas: int = Field(default=1, ge=1, le=64)
    ports: Ports = Ports()
    ready_timeout: Duration = Field(default=300.0, description="Deadline for readiness.")
    drain_timeout: Duration = Field(default=30.0, description="Time for requests to end at stop.")
    default_deadline: Duration | None = Field(
        default=None, description="Longest time a request may take, unless it says so itself."
    )


class RequestClass(Section):
    """One class of requests and its latency target."""

    weight: int = Field(default=1, ge=1, le=1000)
    ttft_ms: float | None = Field(default=None, gt=0)
    itl_ms: float | None = Field(default=None, gt=0)


class Scheduling(Section):
    """Request classes; the first listed is the default one."""

    classes: dict[str, RequestClass] = Field(
        default_factory=lambda: {
            "interactive": RequestClass(weight=8, ttft_ms=500),
            "batch": RequestClass(weight=1, ttft_ms=20_000),
        },
        min_length=1,
    )


class Deployment(Section):
    """One deployment: everything `build`, `deploy` and `bench` need to know."""

    name: str = Field(
        pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$",
        description="Names the ensemble that clients call.",
    )
    model: ModelSource
    quantization: Quantization = Quantization()
    engine: Engine = Engine()
    serving: Serving = Serving()
    scheduling: Scheduling = Scheduling()

    @model_validator(mode="after")
    def _name_is_free(self) -> Deployment:
        if self.name in RESERVED_NAMES:
            raise ValueError(f"name {self.name!r} is taken by a model inside the repository")
        return self


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
