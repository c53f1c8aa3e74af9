"""The pytorch runtime: TensorRT-LLM's LLM API on the unified checkpoint."""

from toolkit.engine.pytorch.arguments import ModelPaths, llm_arguments
from toolkit.engine.pytorch.check import check
from toolkit.engine.pytorch.validation import argument_problems

__all__ = ["ModelPaths", "argument_problems", "check", "llm_arguments"]
