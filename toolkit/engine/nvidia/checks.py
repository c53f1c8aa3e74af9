"""What neither NVIDIA runtime can do, decided from numbers alone.

Every check raises for the first thing that cannot work; none reads a weight.
"""

from __future__ import annotations

from toolkit.checkpoint.architecture import Architecture
from toolkit.checkpoint.rope import LinearRope, OtherRope, YarnRope
from toolkit.engine.nvidia.formats import settled_formats
from toolkit.engine.nvidia.refusal import refusal
from toolkit.engine.nvidia.target import Target, missing_runtime
from toolkit.spec.models import MTP, DraftModel, Engine, Lookahead, Quantization

_READABLE = ("modelopt", "fp8", "mxfp4", "nvfp4")
"""Kinds of quantized checkpoints that the LLM API loads (TensorRT-LLM _torch/model_config.py)."""


def check_common(
    engine: Engine,
    quantization: Quantization,
    arch: Architecture,
    target: Target,
    *,
    draft: Architecture | None,
) -> Quantization:
    """Everything that does not depend on how the runtime is built; formats without ``auto``.

    Raises:
        UnsupportedError: the first thing that cannot work.
    """
    if target.runtime not in target.release.runtimes:
        raise missing_runtime(target.runtime, target.release)
    check_source(arch, target)
    settled = settled_formats(quantization, target)
    check_arithmetic(engine, arch)
    check_context(engine, arch)
    check_parallelism(engine, arch, target)
    check_cache(engine)
    if engine.speculation is not None:
        # Raises where the runtime does not have the method in this release.
        target.release.speculation(engine.speculation.method, target.runtime)
        check_speculation(engine, arch, draft)
    check_step(engine)
    if engine.threads is not None:
        raise refusal(
            "engine.threads", "threads are the CPU runtime's", "remove it; GPUs have no such number"
        )
    return settled


def check_arithmetic(engine: Engine, arch: Architecture) -> None:
    """Number types that the GPUs' attention kernels compute in."""
    if engine.dtype == "float32":
        raise refusal(
            "engine.dtype", "prefill attention on GPUs computes in 16 bit", "use bfloat16 or auto"
        )
    if isinstance(arch.rope_scaling, OtherRope) and arch.family != "other":
        raise refusal(
            "model.source",
            f"rope scaling {arch.rope_scaling.name!r} is not written for TensorRT-LLM",
            "use a checkpoint with plain, linear, llama3 or yarn scaling",
        )


def check_context(engine: Engine, arch: Architecture) -> None:
    """The longest request against the model's context."""
    factor = 1.0
    if isinstance(arch.rope_scaling, LinearRope | YarnRope):
        factor = arch.rope_scaling.factor
    longest = int(arch.max_position * factor)
    if engine.limits.max_seq_len > longest:
        raise refusal(
            "engine.limits.max_seq_len",
            f"{engine.limits.max_seq_len} tokens exceed the model's context of {longest}",
            f"lower it to {longest} or less",
        )


def check_parallelism(engine: Engine, arch: Architecture, target: Target) -> None:
    """Heads, layers and experts against the GPUs that they are spread over."""
    ways = engine.parallelism
    if not ways.attention_data_parallel:
        _check_heads(arch, ways.tensor, target)
    elif ways.tensor == 1:
        raise refusal(
            "engine.parallelism.attention_data_parallel",
            "there is one GPU to attend on",
            "raise engine.parallelism.tensor, or remove it",
        )
    if arch.intermediate_size % ways.tensor:
        raise refusal(
            "engine.parallelism.tensor",
            f"the MLP width ({arch.intermediate_size}) cannot be divided by {ways.tensor}",
            f"what would work: {_divisors(arch.intermediate_size, arch.num_heads)}",
        )
    if ways.pipeline > arch.num_layers:
        raise refusal(
            "engine.parallelism.pipeline",
            f"{arch.num_layers} layers cannot be dealt out to {ways.pipeline} groups",
            f"lower it to {arch.num_layers} or less",
        )
    if ways.expert > 1:
        _check_experts(arch, ways.expert)


def _check_heads(arch: Architecture, tensor: int, target: Target) -> None:
    if arch.num_heads % tensor:
        raise refusal(
            "engine.parallelism.tensor",
            f"{arch.num_heads} attention heads cannot be divided by {tensor}",
            f"what would work: {_divisors(arch.num_heads, arch.num_heads)}",
        )
    kv = arch.num_kv_heads
    # The LLM API repeats KV heads where there are more GPUs than heads; our export does not.
    repeated = target.runtime == "pytorch" and tensor % kv == 0
    if kv % tensor and not repeated:
        raise refusal(
            "engine.parallelism.tensor",
            f"{kv} KV heads cannot be divided by {tensor}",
            f"what would work: {_divisors(kv, arch.num_heads)}",
        )


def _check_experts(arch: Architecture, expert: int) -> None:
    if arch.num_experts is None:
        raise refusal(
            "engine.parallelism.expert",
            f"{arch.model_type} is a dense model without experts",
            "set expert to 1",
        )
    if arch.num_experts % expert:
        raise refusal(
            "engine.parallelism.expert",
            f"{arch.num_experts} experts cannot be dealt out to {expert} groups evenly",
            f"what would work: {_divisors(arch.num_experts, arch.num_experts)}",
        )


def check_cache(engine: Engine) -> None:
    """The paged KV cache's own limits."""
    block = engine.kv_cache.tokens_per_block
    if block & (block - 1):
        raise refusal(
            "engine.kv_cache.tokens_per_block",
            f"blocks of {block} tokens: TensorRT-LLM needs a power of two",
            f"use {1 << (block.bit_length() - 1)} or {1 << block.bit_length()}",
        )
    if engine.kv_cache.host_offload and not engine.kv_cache.reuse:
        raise refusal(
            "engine.kv_cache.host_offload",
            "blocks are moved to the host to be reused, and reuse is off",
            "set engine.kv_cache.reuse to true, or remove host_offload",
        )


def check_speculation(engine: Engine, arch: Architecture, draft: Architecture | None) -> None:
    """The draft against the target, and the drafts against the step."""
    chosen = engine.speculation
    assert chosen is not None
    if isinstance(chosen, MTP) and chosen.num_nextn_predict_layers > arch.mtp_layers:
        raise refusal(
            "engine.speculation.num_nextn_predict_layers"
            if arch.mtp_layers
            else "engine.speculation.method",
            f"the checkpoint has {arch.mtp_layers} multi-token-prediction layers",
            f"lower it to {arch.mtp_layers}" if arch.mtp_layers else "use ngram or draft_model",
        )
    if isinstance(chosen, Lookahead) and chosen.max_draft_len == 0:
        raise refusal(
            "engine.speculation.ngram_size", "guesses of one token guess nothing", "use 2 or more"
        )
    if isinstance(chosen, DraftModel) and draft is not None:
        _check_draft(engine, arch, draft)


def _check_draft(engine: Engine, arch: Architecture, draft: Architecture) -> None:
    if draft.vocab_size != arch.vocab_size:
        raise refusal(
            "engine.speculation.draft.source",
            f"the draft's vocabulary ({draft.vocab_size}) is not the target's ({arch.vocab_size})",
            "use a draft of the same family, or derive_layers",
        )
    if draft.max_position < engine.limits.max_seq_len:
        raise refusal(
            "engine.speculation.draft.source",
            f"the draft's context ({draft.max_position}) is below max_seq_len "
            f"({engine.limits.max_seq_len})",
            f"lower engine.limits.max_seq_len to {draft.max_position}, or use another draft",
        )
    tensor = engine.parallelism.tensor
    if draft.num_heads % tensor or (draft.num_kv_heads % tensor and tensor % draft.num_kv_heads):
        raise refusal(
            "engine.speculation.draft.source",
            f"the draft's {draft.num_heads} heads and {draft.num_kv_heads} KV heads cannot be "
            f"divided by {tensor}",
            "use another draft, or lower engine.parallelism.tensor",
        )


def check_step(engine: Engine) -> None:
    """One step must carry every running request's tokens, and move one prompt on beside them."""
    limits = engine.limits
    drafts = engine.speculation.max_draft_len if engine.speculation else 0
    each, said = drafts + 1, f" ({drafts} drafts each)" if drafts else ""
    least = limits.max_batch_size * each
    if limits.max_num_tokens < least:
        raise refusal(
            "engine.limits.max_num_tokens",
            f"one step of {limits.max_batch_size} requests needs {least} tokens{said}",
            f"raise it to {least} or lower max_batch_size",
        )
    if not engine.batching.chunked_prefill:
        return
    # Prompts are split in whole blocks.
    least = (limits.max_batch_size - 1) * each + engine.kv_cache.tokens_per_block
    if limits.max_num_tokens < least:
        raise refusal(
            "engine.limits.max_num_tokens",
            f"beside {limits.max_batch_size - 1} running requests{said} no block of "
            f"{engine.kv_cache.tokens_per_block} tokens of a prompt fits a step",
            f"raise it to {least} or lower max_batch_size",
        )


def check_source(arch: Architecture, target: Target) -> None:
    """A checkpoint that is quantized already."""
    if arch.quantization is None:
        return
    if target.runtime == "tensorrt":
        raise refusal(
            "model.source",
            f"engines are not built from a quantized checkpoint ({arch.quantization})",
            "start from the full-precision checkpoint, or use engine.runtime: pytorch",
        )
    if arch.quantization not in _READABLE:
        raise refusal(
            "model.source",
            f"the LLM API does not load {arch.quantization} checkpoints",
            "start from the full-precision checkpoint, or one that ModelOpt quantized",
        )


def _divisors(*sizes: int) -> str:
    fitting = [n for n in (1, 2, 4, 8, 16, 32, 64) if all(size % n == 0 for size in sizes)]
    return ", ".join(map(str, fitting))
