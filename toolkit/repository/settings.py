"""From the deployment file to the ``settings.json`` that the model reads at start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from toolkit.checkpoint.architecture import Architecture
from toolkit.engine.openvino.settings import engine_settings
from toolkit.errors import UnsupportedError
from toolkit.spec.models import Deployment


def model_settings(deployment: Deployment, runtime: str, arch: Architecture) -> dict[str, Any]:
    """What ``llm_serving.settings`` loads; ``engine`` is for the runtime's adapter.

    Raises:
        UnsupportedError: the runtime cannot honour a field, or has no templates here.
    """
    if runtime not in _ENGINES:
        raise UnsupportedError(
            f"no Triton repository is rendered for runtime {runtime!r} yet",
            where="engine.runtime",
            hint=f"use one of {', '.join(sorted(_ENGINES))}",
        )
    limits, serving = deployment.engine.limits, deployment.serving
    return {
        "model_name": deployment.name,
        "limits": {"max_input_len": limits.max_input_len, "max_seq_len": limits.max_seq_len},
        "requests": {"default_deadline_s": serving.default_deadline},
        "streaming": {"responses_per_core": deployment.engine.batching.responses_per_core},
        "housekeeping": {"drain_timeout_s": serving.drain_timeout},
        "engine": _ENGINES[runtime](deployment, arch),
    }


def _openvino(deployment: Deployment, arch: Architecture) -> Mapping[str, object]:
    return engine_settings(deployment.engine, deployment.quantization, arch).as_mapping()


_ENGINES: dict[str, Callable[[Deployment, Architecture], Mapping[str, object]]] = {
    "openvino": _openvino
}
