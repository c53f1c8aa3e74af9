"""The deployment file's engine section: the runtime and what it is built for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from toolkit.spec.nvidia import CudaGraphs, GuidedDecoding, Lora, PyTorch, TensorRT
from toolkit.spec.section import Looks, Section, refuse
from toolkit.spec.speculation import Speculation
from toolkit.spec.units import Duration, PositiveDuration, PositiveSize, Size

Runtime = Literal["auto", "tensorrt", "pytorch", "openvino"]
Release = Annotated[
    str,
    Field(pattern=r"^\d+\.\d+(\.\d+)?(rc\d+|\.post\d+)?$"),
    Looks("a TensorRT-LLM release such as 1.2.1"),
]


class Limits(Section):
    """What the engine is built for, in requests and tokens."""

    max_batch_size: int = Field(default=64, ge=1, le=4096, description="Requests in flight.")
    max_input_len: int = Field(
        default=3072, ge=1, le=16_777_216, description="Tokens of one prompt."
    )
    max_seq_len: int = Field(
        default=4096, ge=2, le=16_777_216, description="Prompt and output of one request."
    )
    max_num_tokens: int = Field(
        default=2048, ge=1, le=16_777_216, description="Tokens of all requests in one engine step."
    )

    @model_validator(mode="after")
    def _prompt_fits_sequence(self) -> Limits:
        if self.max_input_len >= self.max_seq_len:
            raise refuse(
                f"max_input_len ({self.said('max_input_len')}) must be below max_seq_len "
                f"({self.said('max_seq_len')}), or no token could be generated",
                fields=("max_input_len", "max_seq_len"),
                hint="lower max_input_len or raise max_seq_len",
            )
        return self

    @model_validator(mode="after")
    def _batch_fits_step(self) -> Limits:
        if self.max_num_tokens < self.max_batch_size:
            raise refuse(
                f"max_num_tokens ({self.said('max_num_tokens')}) is below max_batch_size "
                f"({self.said('max_batch_size')}), but every running request needs a token "
                "in each step",
                fields=("max_num_tokens", "max_batch_size"),
                hint=f"set max_num_tokens to {self.max_batch_size} or more",
            )
        return self

    def said(self, field: str) -> str:
        """The value of ``field``, marked where it is the default."""
        value = str(getattr(self, field))
        return value if field in self.model_fields_set else f"{value} by default"


class Parallelism(Section):
    """How one replica is spread over GPUs."""

    tensor: int = Field(default=1, ge=1, le=64, description="Ways each layer is split.")
    pipeline: int = Field(default=1, ge=1, le=64, description="Groups the layers are split into.")
    expert: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Groups that a mixture's experts are dealt out to, within the tensor GPUs; 1 "
        "splits every expert instead.",
    )
    attention_data_parallel: bool = Field(
        default=False,
        description="Each GPU attends for its own requests instead of its own heads (pytorch "
        "runtime).",
    )

    @property
    def world_size(self) -> int:
        """GPUs of one replica."""
        return self.tensor * self.pipeline

    @model_validator(mode="after")
    def _experts_within_tensor(self) -> Parallelism:
        if self.tensor % self.expert:
            raise refuse(
                f"expert ({self.expert}) has to divide tensor ({self.tensor}), whose GPUs it "
                "deals the experts out to",
                fields=("expert", "tensor"),
                hint=f"set expert to a divisor of {self.tensor}",
            )
        return self


class KvCache(Section):
    """The paged KV cache."""

    reuse: bool = Field(default=True, description="Keep blocks of finished prompts for new ones.")
    partial_reuse: bool = Field(
        default=True, description="Reuse the matching part of a block too (pytorch runtime)."
    )
    free_memory_fraction: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="Share of the memory left after the weights that the pool may take.",
    )
    size: PositiveSize | None = Field(
        default=None,
        description="Fixed pool size, of each GPU; on CPU the default is what the limits need.",
    )
    host_offload: Size = Field(default=0, description="Host memory for evicted blocks.")
    tokens_per_block: int = Field(default=32, ge=8, le=1024, description="Tokens of one block.")


class Batching(Section):
    """How requests share the engine."""

    policy: Literal["guaranteed_no_evict", "max_utilization", "static_batch"] = Field(
        default="guaranteed_no_evict",
        description="Admit only what is sure to finish, or fill up and preempt under pressure.",
    )
    chunked_prefill: bool = Field(default=True, description="Split long prompts over steps.")
    chunking: Literal["first_come_first_served", "equal_progress"] | None = Field(
        default=None,
        description="Whose prompt chunks come first; the runtime's own choice if absent (pytorch "
        "runtime).",
    )
    queue_delay: Duration = Field(
        default=0.0, description="Time to wait for more requests before a step is begun."
    )
    queue_timeout: PositiveDuration | None = Field(
        default=None, description="Longest wait in the queue; a request past it is refused."
    )
    max_queue_size: int = Field(
        default=256,
        ge=1,
        le=1_000_000,
        description="Requests that may wait; more are refused, retryably.",
    )
    stream_interval: int = Field(
        default=1, ge=1, le=64, description="Engine steps between two streamed responses."
    )
    responses_per_core: float = Field(
        default=75,
        ge=0,
        description="Streamed responses a second and processor core that all requests share; "
        "beyond it the tokens of one request are merged. 0: no bound.",
    )


class Engine(Section):
    """The runtime and what it is built for."""

    runtime: Runtime = Field(
        default="auto", description="tensorrt or pytorch (NVIDIA GPUs), openvino (CPU)."
    )
    release: Release | None = Field(
        default=None,
        description="TensorRT-LLM release; the newest supported one if absent.",
        examples=["1.2.1"],
    )
    limits: Limits = Field(default=Limits(), description="Requests and tokens to build for.")
    parallelism: Parallelism = Field(default=Parallelism(), description="GPUs of one replica.")
    kv_cache: KvCache = Field(default=KvCache(), description="The paged KV cache.")
    batching: Batching = Field(default=Batching(), description="How requests share a step.")
    speculation: Speculation | None = Field(
        default=None, description="Speculative decoding; off if absent."
    )
    guided_decoding: GuidedDecoding | None = Field(
        default=None,
        description="Library that keeps answers to a JSON schema, regex or grammar; off if absent.",
    )
    lora: Lora | None = Field(default=None, description="Low-rank adapters; none if absent.")
    cuda_graphs: CudaGraphs = Field(
        default=CudaGraphs(), description="Recorded decoding steps (NVIDIA GPUs)."
    )
    tensorrt: TensorRT = Field(
        default=TensorRT(), description="Engine builds; for the tensorrt runtime only."
    )
    pytorch: PyTorch = Field(
        default=PyTorch(), description="Kernels and scheduling; for the pytorch runtime only."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Arithmetic between quantized layers: auto is float32 on CPU and the "
        "checkpoint's own type on NVIDIA GPUs.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="CPU runtime: compute threads; all cores if absent.",
    )

    @model_validator(mode="after")
    def _whole_prompt_fits_step(self) -> Engine:
        limits = self.limits
        if self.batching.chunked_prefill or limits.max_num_tokens >= limits.max_input_len:
            return self
        raise refuse(
            f"with chunked_prefill off a whole prompt has to fit in one step, but max_num_tokens "
            f"({limits.said('max_num_tokens')}) is below max_input_len "
            f"({limits.said('max_input_len')})",
            fields=("limits.max_num_tokens", "batching.chunked_prefill"),
            hint=f"set max_num_tokens to {limits.max_input_len} or more, or turn "
            "engine.batching.chunked_prefill on",
        )
