from __future__ import annotations

from pathlib import Path

import pytest
from small_model import write_small_model

from toolkit.checkpoint.architecture import Architecture, read_architecture


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained-to-nothing llama of three layers with a byte tokenizer, made in a second."""
    return write_small_model(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="session")
def small_arch(small_checkpoint: Path) -> Architecture:
    return read_architecture(small_checkpoint)
