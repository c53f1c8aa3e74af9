"""The tensorrt runtime: engines that ``trtllm-build`` makes, with TensorRT-LLM up to 1.2."""

from toolkit.engine.tensorrt.build import BuildPaths, Command, build_commands
from toolkit.engine.tensorrt.check import check
from toolkit.engine.tensorrt.engine_config import EngineConfig, read_engine_config
from toolkit.engine.tensorrt.readback import check_engine

__all__ = [
    "BuildPaths",
    "Command",
    "EngineConfig",
    "build_commands",
    "check",
    "check_engine",
    "read_engine_config",
]
