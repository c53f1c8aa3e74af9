"""Checkpoints: get the weights, check that they are whole and safe, say what they are."""

from toolkit.checkpoint.architecture import Architecture, expected_tensors, read_architecture
from toolkit.checkpoint.archive import pack, unpack
from toolkit.checkpoint.pypi import pip_wheel
from toolkit.checkpoint.rope import LinearRope, Llama3Rope, OtherRope, RopeScaling, YarnRope
from toolkit.checkpoint.sources import fetch
from toolkit.checkpoint.summary import CheckpointSummary, inspect
from toolkit.checkpoint.verification import CheckpointReport, Problem, examine, verify

__all__ = [
    "Architecture",
    "CheckpointReport",
    "CheckpointSummary",
    "LinearRope",
    "Llama3Rope",
    "OtherRope",
    "Problem",
    "RopeScaling",
    "YarnRope",
    "examine",
    "expected_tensors",
    "fetch",
    "inspect",
    "pack",
    "pip_wheel",
    "read_architecture",
    "unpack",
    "verify",
]
