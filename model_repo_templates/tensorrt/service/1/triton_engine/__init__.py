"""An engine that is another Triton model: NVIDIA's C++ backend, in token ids.

One idea a file: ``settings`` (what the deployment decided), ``wire`` (a request as the backend's
tensors and its answer back), ``call`` (one answered request inside the server), ``generate``
(plain, and with a draft model before it), ``engine`` (the threads around that). The tensors are
those of triton_backend/all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt in
NVIDIA/TensorRT-LLM; inside the server they pass through Triton's business logic scripting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .engine import TritonEngine
from .settings import TritonEngineSettings


def create(settings: Mapping[str, Any]) -> TritonEngine:
    """An engine that is not started yet.

    Raises:
        ValueError: settings that cannot work.
    """
    return TritonEngine(TritonEngineSettings.from_mapping(settings))


__all__ = ["create"]
