"""What the two NVIDIA runtimes have in common: release, GPU, formats, refusals."""

from toolkit.engine.nvidia.formats import settled_formats
from toolkit.engine.nvidia.target import NvidiaRuntime, Target, target_of

__all__ = ["NvidiaRuntime", "Target", "settled_formats", "target_of"]
