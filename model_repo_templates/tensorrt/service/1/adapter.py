"""The GPU engine: NVIDIA's C++ backend, which is another model of the same server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_serving.engine_api import Engine
from triton_engine import create


def create_engine(settings: dict[str, Any], model_dir: Path, instance: str = "") -> Engine:
    """An engine that asks the model ``tensorrt_llm``, not started yet.

    Raises:
        ValueError: settings that cannot work.
    """
    return create(settings)
