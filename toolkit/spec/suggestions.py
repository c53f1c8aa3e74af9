"""What a user meant by a key that the file does not know."""

from __future__ import annotations

import difflib
import re

from toolkit.spec.fields import Known, Spot, known_fields
from toolkit.spec.overrides import dotted
from toolkit.spec.problems import shown
from toolkit.spec.section import Section

# What TensorRT-LLM, its Triton backend, ModelOpt and vLLM call what a field here sets. Sources:
# trtllm-build --help, the LLM API reference, the Triton backend's model_config.md, ModelOpt's
# hf_ptq.py and vLLM's engine arguments.
ELSEWHERE = {
    "batch_scheduler_policy": "engine.batching.policy",
    "capacity_scheduler_policy": "engine.batching.policy",
    "context_chunking_policy": "engine.batching.chunking",
    "decoding_type": "engine.speculation.method",
    "disable_overlap_scheduler": "engine.pytorch.overlap_scheduler",
    "enable_attention_dp": "engine.parallelism.attention_data_parallel",
    "enable_block_reuse": "engine.kv_cache.reuse",
    "enable_chunked_context": "engine.batching.chunked_prefill",
    "enable_chunked_prefill": "engine.batching.chunked_prefill",
    "enable_padding": "engine.cuda_graphs.padding",
    "enable_partial_reuse": "engine.kv_cache.partial_reuse",
    "enable_kv_cache_reuse": "engine.kv_cache.reuse",
    "enable_prefix_caching": "engine.kv_cache.reuse",
    "free_gpu_memory_fraction": "engine.kv_cache.free_memory_fraction",
    "ep_size": "engine.parallelism.expert",
    "gpu_device_ids": "serving.gpus",
    "gpu_memory_utilization": "engine.kv_cache.free_memory_fraction",
    "guided_decoding_backend": "engine.guided_decoding",
    "host_cache_size": "engine.kv_cache.host_offload",
    "kv_cache_free_gpu_mem_fraction": "engine.kv_cache.free_memory_fraction",
    "kv_cache_host_memory_bytes": "engine.kv_cache.host_offload",
    "kv_cache_qformat": "quantization.kv_cache",
    "lora_config": "engine.lora",
    "lora_target_modules": "engine.lora.target_modules",
    "max_lora_rank": "engine.lora.max_rank",
    "max_model_len": "engine.limits.max_seq_len",
    "max_num_batched_tokens": "engine.limits.max_num_tokens",
    "max_num_seqs": "engine.limits.max_batch_size",
    "max_queue_delay_microseconds": "engine.batching.queue_delay",
    "moe_expert_parallel_size": "engine.parallelism.expert",
    "pipeline_parallel_size": "engine.parallelism.pipeline",
    "pp_size": "engine.parallelism.pipeline",
    "qformat": "quantization.weights",
    "speculative_config": "engine.speculation",
    "tensor_parallel_size": "engine.parallelism.tensor",
    "tp_size": "engine.parallelism.tensor",
}

_NEAR_HERE, _LIKELY_HERE, _NEAR_ELSEWHERE = 0.6, 0.85, 0.85


def unknown_key(root: type[Section], spot: Spot) -> tuple[str, str | None]:
    """Message and hint for a key that its section does not have."""
    section = dotted(spot.path[:-1])
    key = str(spot.path[-1])
    message = f"unknown key {shown(key)}" + (f" in {section}" if section else "")
    return message, _hint(root, spot, _snake(key))


def _hint(root: type[Section], spot: Spot, key: str) -> str | None:
    here = sorted({name for model in spot.parent for name in model.model_fields})
    likely = difflib.get_close_matches(key, here, n=1, cutoff=_LIKELY_HERE)
    if likely:
        return f"did you mean {likely[0]}?"
    if key in ELSEWHERE:
        return f"here it is called {ELSEWHERE[key]}"
    known = known_fields(root)
    exact = [field for field in known if field.name == key]
    if exact:
        return f"{key} belongs under {_places(exact)}"
    near = difflib.get_close_matches(key, here, n=1, cutoff=_NEAR_HERE)
    if near:
        return f"did you mean {near[0]}?"
    names = sorted({field.name for field in known})
    far = difflib.get_close_matches(key, names, n=1, cutoff=_NEAR_ELSEWHERE)
    if far:
        fields = [field for field in known if field.name == far[0]]
        return f"did you mean {far[0]}, under {_places(fields)}?"
    return f"known here: {', '.join(here)}" if here else None


def _places(fields: list[Known]) -> str:
    by_section: dict[str, list[str]] = {}
    for field in fields:
        by_section.setdefault(field.section, []).extend([field.tag] if field.tag else [])
    shown = [
        f"{section or 'the top level'} (method {' or '.join(tags)})" if tags else section
        for section, tags in by_section.items()
    ]
    return " or ".join(text or "the top level" for text in shown)


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").lower()
