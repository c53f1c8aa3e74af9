"""What of the engine path the LLM API has no counterpart of, and what stands in for it."""

from __future__ import annotations

from dataclasses import dataclass

_TENSORRT_LLM = "https://github.com/NVIDIA/TensorRT-LLM"
REMOVAL = f"{_TENSORRT_LLM}/pull/15918"
TRITON_REMOVAL = f"{_TENSORRT_LLM}/pull/15907"
GUIDE = f"{_TENSORRT_LLM}/pull/15767"
EXAMPLES = f"{_TENSORRT_LLM}/pull/15763"
SPECULATION = "https://nvidia.github.io/TensorRT-LLM/features/speculative-decoding.html"
FORMATS = "https://nvidia.github.io/TensorRT-LLM/1.2.1/features/quantization.html"
ARGUMENTS = "https://nvidia.github.io/TensorRT-LLM/1.3.0rc27/llm-api/reference/TorchLlmArgs.html"


@dataclass(frozen=True, slots=True)
class Rule:
    """Why a field goes, for whoever had set it.

    Attributes:
        field: Path in the deployment file.
        gone: What there is no more.
        instead: What does its work now, or how to get the effect.
        source: Where upstream says so.
    """

    field: str
    gone: str
    instead: str
    source: str


RULES = (
    Rule(
        "engine.tensorrt.opt_num_tokens",
        "no optimization profile is built",
        "the autotuner times kernels at start (engine.pytorch.autotuner, on by default)",
        ARGUMENTS,
    ),
    Rule(
        "engine.tensorrt.multiple_profiles",
        "no optimization profiles are built",
        "the autotuner times kernels at start (engine.pytorch.autotuner, on by default), and CUDA "
        "graphs are recorded by batch size (engine.cuda_graphs.batch_sizes)",
        ARGUMENTS,
    ),
    Rule(
        "engine.tensorrt.gemm_plugin",
        "there are no plugins",
        "kernels follow from the weight format",
        REMOVAL,
    ),
    Rule(
        "engine.tensorrt.fp8_context_attention",
        "it is no choice any more",
        "the attention kernels follow from quantization.weights and quantization.kv_cache",
        REMOVAL,
    ),
    Rule(
        "engine.tensorrt.reduce_fusion",
        "it is no choice any more",
        "the model's own code fuses where it can; the LLM API picks the all-reduce",
        ARGUMENTS,
    ),
    Rule(
        "engine.tensorrt.user_buffer",
        "it is no choice any more",
        "the LLM API picks the all-reduce (allreduce_strategy AUTO)",
        ARGUMENTS,
    ),
    Rule(
        "engine.tensorrt.low_latency_gemm",
        "there are no plugins",
        "the autotuner chooses among FP8 kernels (engine.pytorch.autotuner)",
        ARGUMENTS,
    ),
    Rule(
        "engine.tensorrt.gather_context_logits",
        "an engine's output is not chosen at build time any more",
        "a request asks for them with its sampling parameters (return_context_logits)",
        ARGUMENTS,
    ),
    Rule(
        "engine.tensorrt.gather_generation_logits",
        "an engine's output is not chosen at build time any more",
        "a request asks for them with its sampling parameters (return_generation_logits)",
        ARGUMENTS,
    ),
    Rule("engine.tensorrt.workers", "no engine is built", "nothing: it loads at once", EXAMPLES),
    Rule(
        "engine.cuda_graphs.cache_size",
        "graphs are recorded by batch size instead of kept in a cache",
        "engine.cuda_graphs.batch_sizes lists the sizes; the release's series if absent",
        ARGUMENTS,
    ),
    Rule(
        "engine.batching.queue_timeout",
        "requests do not wait in Triton's queue",
        "serving.default_deadline counts a request's whole time, its wait included",
        TRITON_REMOVAL,
    ),
)

MEDUSA = Rule(
    "engine.speculation",
    "the LLM API loads no Medusa heads",
    "method eagle3 with a head trained for the model, draft_model, or ngram (no second model)",
    SPECULATION,
)
EAGLE = Rule(
    "engine.speculation",
    "the LLM API of PyTorch loads no EAGLE-1 head",
    "method eagle3 with an EAGLE-3 head trained for the model, draft_model, or ngram",
    SPECULATION,
)
LOOKAHEAD = Rule(
    "engine.speculation",
    "lookahead decoding is the engine path's",
    "ngram, which needs no second model either: it proposes what followed the same words before; "
    "measure whether it pays (toolkit bench)",
    SPECULATION,
)
OTHER_METHOD = Rule(
    "engine.speculation",
    "the release does not have the method in the LLM API",
    "one of the methods that toolkit releases lists",
    SPECULATION,
)
FORMAT = Rule(
    "quantization",
    "the LLM API has no kernels for the format on this GPU",
    "the nearest format that it has; the accuracy gate measures what it costs",
    FORMATS,
)
BLOCKS = Rule(
    "quantization.block_size",
    "the new weight format has no blocks of a chosen size",
    "nothing: the size is fixed",
    FORMATS,
)
RUNTIME = Rule(
    "engine.runtime",
    "TensorRT engines: 1.2.1 is the last stable release that builds and serves them",
    "the LLM API loads the quantized checkpoint itself",
    REMOVAL,
)
RELEASE = Rule(
    "engine.release",
    "the file was for another release",
    "the release that was asked for: names and defaults are taken from its table",
    GUIDE,
)
IMAGE = Rule(
    "serving.image",
    "the image holds another release",
    "the release's own Triton image, where one is known",
    TRITON_REMOVAL,
)
GRAPHS = Rule(
    "engine.cuda_graphs.enabled",
    "engines record no CUDA graphs unless told to, the LLM API does: more GPU memory, and a "
    "longer start",
    "set it to false to have it as it was, or measure both (toolkit bench)",
    ARGUMENTS,
)

REBUILT = (
    Rule(
        "TensorRT-LLM checkpoint and engines",
        "not read any more",
        "toolkit build writes the unified checkpoint (quantizing again from the original weights) "
        "and builds no engine",
        GUIDE,
    ),
    Rule(
        "Triton repository",
        "preprocessing, postprocessing, tensorrt_llm_bls and the token-id model tensorrt_llm are "
        "not rendered",
        "clients of the deployment's own model go on as before; clients that sent token ids to "
        "tensorrt_llm send text",
        TRITON_REMOVAL,
    ),
)
