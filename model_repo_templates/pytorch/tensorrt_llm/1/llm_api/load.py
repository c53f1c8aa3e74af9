"""From model.yaml to a running LLM."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_serving.tokenizer import TextTokenizer

from .devices import restrict
from .engine import LlmApiEngine
from .sampling import RequestWriter
from .settings import LlmApiSettings

_HERE = "./"
"""Marks a path below the model's version folder in model.yaml."""
_SCALE = "TOOLKIT_KV_CACHE_SCALE"
_SIZES = ("free_gpu_memory_fraction", "max_gpu_total_bytes", "max_tokens")


def create(settings: Mapping[str, Any], model_dir: Path, instance: str) -> LlmApiEngine:
    """An engine that is not started yet; the model is loaded at its start.

    Raises:
        ValueError: settings that cannot work.
    """
    known = LlmApiSettings.from_mapping(settings)
    arguments = with_smaller_cache(read_arguments(model_dir), float(os.environ.get(_SCALE, "1")))
    if len(known.gpus) > 1:
        arguments["gpus_per_node"] = len(restrict(os.environ, known.gpus, instance))
    writer = RequestWriter(known, model_dir, TextTokenizer(model_dir / "tokenizer"))
    return LlmApiEngine(known, lambda: _llm(arguments, known.release), writer)


def read_arguments(model_dir: Path) -> dict[str, Any]:
    """The LLM's arguments with absolute paths; what is Triton's is left out.

    Raises:
        ValueError: model.yaml names a path that is not there.
    """
    import yaml

    content = yaml.safe_load((model_dir / "model.yaml").read_text(encoding="utf-8"))
    content.pop("triton_config", None)
    resolved: dict[str, Any] = _resolved(content, model_dir)
    return resolved


def with_smaller_cache(arguments: dict[str, Any], scale: float) -> dict[str, Any]:
    """The arguments with a KV cache of ``scale`` (0 < x <= 1): 1, or less after running out."""
    cache = dict(arguments.get("kv_cache_config") or {})
    for name in _SIZES:
        if cache.get(name) is not None:
            cache[name] = type(cache[name])(cache[name] * scale)
    return {**arguments, "kv_cache_config": cache} if cache else arguments


def _resolved(value: Any, model_dir: Path) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(each, model_dir) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolved(each, model_dir) for each in value]
    if isinstance(value, str) and value.startswith(_HERE):
        path = model_dir / value
        if not path.exists():
            raise ValueError(f"model.yaml: {value} is not there")
        return str(path.resolve())
    return value


def _llm(arguments: dict[str, Any], release: str) -> Any:
    # After restrict(): importing it initializes CUDA, whose processes keep the GPUs they saw.
    import tensorrt_llm
    from tensorrt_llm.llmapi.llm_utils import update_llm_args_with_extra_dict

    found = tensorrt_llm.__version__
    if found != release and not found.startswith(f"{release}."):
        raise RuntimeError(f"model.yaml is written for TensorRT-LLM {release}, this is {found}")
    # Nested sections become the classes that the constructor wants, as in trtllm-serve.
    return tensorrt_llm.LLM(**update_llm_args_with_extra_dict({}, arguments))
