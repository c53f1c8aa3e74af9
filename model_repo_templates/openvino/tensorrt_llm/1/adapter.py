"""The CPU engine: continuous batching over OpenVINO's paged attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_serving.engine_api import Engine
from paged_engine import create


def create_engine(settings: dict[str, Any], model_dir: Path, instance: str = "") -> Engine:
    """An engine over the compiled model in ``model_dir/engine``, not started yet.

    There is one instance of it, so its name does not matter.

    Raises:
        ValueError: settings that cannot work.
    """
    return create(settings, model_dir / "engine")
