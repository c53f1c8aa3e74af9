"""The GPU engine: TensorRT-LLM's LLM API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_api import create
from llm_serving.engine_api import Engine


def create_engine(settings: dict[str, Any], model_dir: Path, instance: str = "") -> Engine:
    """An engine over the checkpoint that ``model_dir/model.yaml`` names, not started yet.

    ``instance`` is Triton's name of this instance: its number at the end picks the GPUs.

    Raises:
        ValueError: settings that cannot work.
    """
    return create(settings, model_dir, instance)
