"""One rendered repository for all tests of this folder; who changes it takes a copy."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODEL_CODE = HERE.parents[1] / "model_repo_templates/shared/tensorrt_llm/1"
sys.path[:0] = [str(HERE), str(MODEL_CODE)]

from miniature import write_checkpoint, write_engine  # noqa: E402

from toolkit.repository.render import render  # noqa: E402
from toolkit.spec.models import Deployment  # noqa: E402


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Compiled engine and checkpoint."""
    folder = tmp_path_factory.mktemp("sources")
    return write_engine(folder / "engine"), write_checkpoint(folder / "checkpoint")


@pytest.fixture(scope="session")
def deployment() -> Deployment:
    return Deployment.model_validate({"name": "chat", "model": {"source": "test"}})


@pytest.fixture(scope="session")
def rendered(
    deployment: Deployment, sources: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return render(deployment, *sources, tmp_path_factory.mktemp("rendered") / "repository").path


@pytest.fixture
def repository(rendered: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(rendered, tmp_path / "repository"))
