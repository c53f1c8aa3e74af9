"""The CPU runtime: a checkpoint becomes OpenVINO IR that a paged-attention engine runs."""

from toolkit.engine.openvino.compiling import (
    CompiledEngine,
    CompiledModel,
    check_draft,
    compile_checkpoint,
)
from toolkit.engine.openvino.settings import EngineSettings, check, engine_settings

__all__ = [
    "CompiledEngine",
    "CompiledModel",
    "EngineSettings",
    "check",
    "check_draft",
    "compile_checkpoint",
    "engine_settings",
]
