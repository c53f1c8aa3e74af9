"""A real Triton with a small repository of its own, for tests of launching and supervising."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolkit.progress import Silent
from toolkit.serving import deploy, install
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.state import RunDirectory
from toolkit.spec.models import Deployment, ModelSource, Ports, Serving

REPOSITORY = Path(__file__).parent / "word_repository"


def words_deployment(name: str = "words", **serving: object) -> Deployment:
    settings = {"ports": Ports(http=0, grpc=0, metrics=0), "drain_timeout": 10, **serving}
    return Deployment(
        name=name, model=ModelSource(source="./model"), serving=Serving.model_validate(settings)
    )


def words_repository(path: Path, name: str = "words") -> Path:
    """A copy of the test's model repository with its ensemble named ``name``."""
    shutil.copytree(REPOSITORY / "tensorrt_llm", path / "tensorrt_llm")
    (path / name / "1").mkdir(parents=True)
    config = (REPOSITORY / "ensemble/config.pbtxt").read_text()
    (path / name / "config.pbtxt").write_text(config.replace("NAME", name))
    return path


@pytest.fixture(scope="session")
def triton() -> install.ServerBinary:
    """The server of the wheel, in the user's cache (downloaded at first use)."""
    return install.install_server(Silent())


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """A workspace root; whatever a test leaves running there is stopped."""
    yield tmp_path / "state"
    for path in (tmp_path / "state" / "run").glob("*/state.json"):
        deploy.stop(RunDirectory(tmp_path / "state", path.parent.name), force=True)


@pytest.fixture
def make_plan(triton: install.ServerBinary, tmp_path: Path) -> Callable[..., LaunchPlan]:
    """Plans for the words repository; keywords go to the plan's fields."""

    def make(name: str = "words", **changes: object) -> LaunchPlan:
        repository = tmp_path / f"repository-{name}"
        if not repository.exists():
            words_repository(repository, name)
        plan = LaunchPlan(
            name=name,
            repository=repository,
            repository_digest=deploy.repository_digest(repository),
            executable=triton.executable,
            backends=triton.backends,
            host="127.0.0.1",
            ports=Ports(http=0, grpc=0, metrics=0),
            ready_timeout=60,
            drain_timeout=10,
            max_batch_size=8,
        )
        return plan.model_copy(update=changes)

    return make
