"""From a deployment to a Triton model repository: stages in order, each an artifact."""

from toolkit.pipeline.build import BuildResult, Configs, StageResult, build

__all__ = ["BuildResult", "Configs", "StageResult", "build"]
