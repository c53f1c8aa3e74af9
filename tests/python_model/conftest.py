"""Paths of the model's code, a checkpoint in miniature, a served test engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODEL_CODE = HERE.parents[1] / "model_repo_templates/shared/tensorrt_llm/1"
sys.path[:0] = [str(MODEL_CODE), str(HERE), str(HERE.parent / "repository")]

import fake_pb_utils  # noqa: E402
from miniature import write_checkpoint  # noqa: E402
from served_double import Triton, render_double, start_triton, stop_triton  # noqa: E402

sys.modules.setdefault("triton_python_backend_utils", fake_pb_utils)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def triton(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    folder = tmp_path_factory.mktemp("triton")
    running = start_triton(render_double(folder, checkpoint), "chat", folder / "server.log")
    yield running
    stop_triton(running)
