"""What only the NVIDIA runtimes know: adapters, CUDA graphs, kernels and engine builds.

Terms are ours; what each TensorRT-LLM release calls them, and whether it has them at all, is
decided by :mod:`toolkit.engine.tensorrt` and :mod:`toolkit.engine.pytorch` from the release's
table.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from toolkit.spec.section import Looks, Names, Section, as_tuple, refuse

AdapterName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"),
    Looks("1 to 63 letters, digits, ., - or _, with a letter or digit at both ends"),
]
BatchSizes = Annotated[
    tuple[Annotated[int, Field(ge=1, le=4096)], ...],
    BeforeValidator(as_tuple),
]
GuidedDecoding = Literal["xgrammar", "llguidance"]


class Lora(Section):
    """Low-rank adapters that requests choose by name."""

    adapters: dict[AdapterName, str] = Field(
        min_length=1,
        description="Adapters by name, each like model.source.",
        examples=[{"sql": "./adapters/sql", "support": "hf://acme/support-lora@main"}],
    )
    max_rank: int = Field(default=64, ge=1, le=1024, description="Highest rank of any adapter.")
    target_modules: Names = Field(
        default=("attn_q", "attn_k", "attn_v"),
        min_length=1,
        description="Modules that the adapters change, in TensorRT-LLM's terms.",
    )
    max_on_gpu: int | None = Field(
        default=None, ge=1, le=4096, description="Adapters held on the GPU; all if absent."
    )
    max_on_host: int | None = Field(
        default=None, ge=1, le=65_536, description="Adapters held in host memory; all if absent."
    )


class CudaGraphs(Section):
    """Replaying recorded decoding steps instead of launching each kernel."""

    enabled: bool | None = Field(
        default=None,
        description="On in the pytorch runtime and off in the tensorrt runtime if absent, as "
        "TensorRT-LLM has it.",
    )
    padding: bool = Field(
        default=True, description="Round a batch up to a recorded size (pytorch runtime)."
    )
    batch_sizes: BatchSizes | None = Field(
        default=None,
        min_length=1,
        description="Sizes that are recorded; TensorRT-LLM's own series up to "
        "limits.max_batch_size if absent (pytorch runtime).",
        examples=[[1, 2, 4, 8, 16, 32]],
    )
    cache_size: int = Field(
        default=0, ge=0, le=65_536, description="Graphs kept at once (tensorrt runtime)."
    )


class TensorRT(Section):
    """The tensorrt runtime: how its engines are built."""

    opt_num_tokens: int | None = Field(
        default=None,
        ge=1,
        le=16_777_216,
        description="Tokens of a step that kernels are tuned for; limits.max_batch_size if "
        "absent. Not with multiple_profiles.",
    )
    multiple_profiles: bool = Field(
        default=False, description="Tune kernels for several sizes of step; builds take longer."
    )
    gemm_plugin: Literal["auto", "fp8", "nvfp4", "disable"] | None = Field(
        default=None,
        description="cuBLASLt matrix products: by the weight format if absent.",
    )
    fp8_context_attention: bool = Field(
        default=True,
        description="Prefill attention in FP8 where weights and KV cache are FP8.",
    )
    reduce_fusion: bool = Field(
        default=False, description="Fuse all-reduce with the norm after it; llama with tensor > 1."
    )
    user_buffer: bool = Field(
        default=False, description="NCCL user buffers; with reduce_fusion and fp8 weights."
    )
    low_latency_gemm: bool = Field(
        default=False, description="FP8 matrix products for small batches; fp8 weights only."
    )
    gather_context_logits: bool = Field(
        default=False, description="Keep the logits of prompts, so that requests may ask for them."
    )
    gather_generation_logits: bool = Field(
        default=False, description="Keep the logits of generated tokens likewise."
    )
    workers: int | None = Field(
        default=None, ge=1, le=64, description="Ranks built at once; all of them if absent."
    )

    @model_validator(mode="after")
    def _one_tuning(self) -> TensorRT:
        if self.multiple_profiles and self.opt_num_tokens is not None:
            raise refuse(
                "opt_num_tokens tunes for one size of step, multiple_profiles for several",
                fields=("opt_num_tokens", "multiple_profiles"),
                hint="remove one of the two",
            )
        return self

    @model_validator(mode="after")
    def _buffers_are_for_fusion(self) -> TensorRT:
        if self.user_buffer and not self.reduce_fusion:
            raise refuse(
                "user_buffer has no effect without reduce_fusion",
                fields=("user_buffer", "reduce_fusion"),
                hint="set reduce_fusion to true, or remove user_buffer",
            )
        return self


class PyTorch(Section):
    """The pytorch runtime: kernels and scheduling of the LLM API."""

    overlap_scheduler: bool | None = Field(
        default=None,
        description="Prepare the next step on the CPU while the GPU computes; on where the "
        "speculation method permits it if absent.",
    )
    attention_backend: Literal["trtllm", "flashinfer", "vanilla"] | None = Field(
        default=None, description="Attention kernels; the release's own choice if absent."
    )
    moe_backend: str | None = Field(
        default=None,
        min_length=1,
        description="Kernels of mixtures of experts, in the release's terms; its own choice if "
        "absent.",
        examples=["CUTLASS"],
    )
    torch_compile: bool = Field(default=False, description="Compile the model with torch.")
    autotuner: bool = Field(default=True, description="Time candidate kernels at start.")
