"""The CPU engine's own answers, and servers that have it in NVIDIA's place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

HERE = Path(__file__).parent
TEMPLATES = HERE.parents[1] / "model_repo_templates"
sys.path[:0] = [
    str(HERE),
    str(HERE.parent / "python_model"),
    str(HERE.parent / "repository"),
    str(HERE.parent / "engine"),
    str(TEMPLATES / "pytorch/tensorrt_llm/1"),
    str(TEMPLATES / "tensorrt/service/1"),
]

import fake_pb_utils  # noqa: E402

sys.modules.setdefault("triton_python_backend_utils", fake_pb_utils)
from cpu_reference import Reference  # noqa: E402
from served_double import Triton, start_triton, stop_triton  # noqa: E402
from topology import render_topology  # noqa: E402

if TYPE_CHECKING:
    from toolkit.workspace import Artifact


@pytest.fixture(scope="module")
def reference(plain_engine: Artifact, sample_checkpoint: Artifact) -> Iterator[Reference]:
    """The engine driven directly, in this process."""
    made = Reference(plain_engine.path, sample_checkpoint.path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def tensorrt_server(
    plain_engine: Artifact, sample_checkpoint: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("tensorrt")
    repository = render_topology(folder, plain_engine.path, sample_checkpoint.path)
    running = start_triton(repository, "ensemble", folder / "server.log")
    yield running
    stop_triton(running)
