"""The pytorch runtime: TensorRT-LLM's LLM API on the unified checkpoint."""

from toolkit.engine.pytorch.arguments import ModelPaths, llm_arguments
from toolkit.engine.pytorch.check import check
from toolkit.engine.pytorch.requests import RequestLimits, request_limits
from toolkit.engine.pytorch.validation import argument_problems

__all__ = [
    "ModelPaths",
    "RequestLimits",
    "argument_problems",
    "check",
    "llm_arguments",
    "request_limits",
]
