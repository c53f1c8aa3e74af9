"""The sample model, taken through the real pipeline once; every room's tests share the results.

What is built lies in ``.cache/tests`` (or ``$TOOLKIT_TEST_CACHE``) and survives the session: an
artifact's key holds the digest of the code that made it, so a change of that code builds again.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# A room is imported by the fixture that needs it: one that is broken fails its own tests only.
if TYPE_CHECKING:
    from toolkit.pipeline import BuildResult
    from toolkit.serving.deploy import RunningServer
    from toolkit.spec.models import Deployment
    from toolkit.workspace import Artifact, Workspace

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("TOOLKIT_TEST_CACHE", ROOT / ".cache" / "tests")).absolute()

FREE_PORTS = (
    *(f"serving.ports.{name}=0" for name in ("http", "grpc", "metrics")),
    "gateway.port=0",
)


def pytest_configure() -> None:
    """Keep tests away from the user's own cache, workspace and settings."""
    # It must come before the standard library's distutils, which other packages import.
    with contextlib.suppress(ImportError):
        importlib.import_module("setuptools")
    os.environ["TOOLKIT_CACHE"] = str(CACHE / "user")
    for name in [name for name in os.environ if name.startswith("TOOLKIT__")]:
        del os.environ[name]
    for name in ("TOOLKIT_WORKSPACE", "TOOLKIT_DEBUG"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def store() -> Workspace:
    """The workspace that the whole session and later ones share."""
    from toolkit.workspace import Workspace

    return Workspace(CACHE / "workspace")


@pytest.fixture(scope="session")
def sample_deployment() -> Deployment:
    """``examples/smollm2.yaml``, the fp8 deployment of the demo, on free ports."""
    return _example(*FREE_PORTS)


@pytest.fixture(scope="session")
def plain_deployment() -> Deployment:
    """The same model as it is: builds in seconds."""
    return _example(*FREE_PORTS, "name=plain", "quantization.weights=none")


def _example(*overrides: str) -> Deployment:
    from toolkit.spec.loading import load

    return load(ROOT / "examples" / "smollm2.yaml", overrides=overrides, environ={}).resolved()


@pytest.fixture(scope="session")
def sample_checkpoint(store: Workspace) -> Artifact:
    """SmolLM2-135M-Instruct as safetensors."""
    from toolkit.checkpoint import fetch
    from toolkit.progress import Silent
    from toolkit.spec.models import ModelSource

    return fetch(ModelSource(source="sample:smollm2-135m"), store, progress=Silent())


@pytest.fixture(scope="session")
def fp8_build(store: Workspace, sample_deployment: Deployment) -> BuildResult:
    """The demo's build: quantized by ModelOpt, compiled, rendered."""
    return _build(sample_deployment, store)


@pytest.fixture(scope="session")
def plain_build(store: Workspace, plain_deployment: Deployment) -> BuildResult:
    """The build without quantization."""
    return _build(plain_deployment, store)


def _build(deployment: Deployment, store: Workspace) -> BuildResult:
    from toolkit.pipeline import build
    from toolkit.progress import Silent

    return build(deployment, store, progress=Silent())


@pytest.fixture(scope="session")
def fp8_checkpoint(fp8_build: BuildResult) -> Artifact:
    """The unified fp8 checkpoint."""
    artifact = fp8_build.artifact("quantized")
    assert artifact is not None
    return artifact


@pytest.fixture(scope="session")
def fp8_engine(fp8_build: BuildResult) -> Artifact:
    """The compiled fp8 engine."""
    artifact = fp8_build.artifact("engine")
    assert artifact is not None
    return artifact


@pytest.fixture(scope="session")
def plain_engine(plain_build: BuildResult) -> Artifact:
    """The compiled engine without quantization."""
    artifact = plain_build.artifact("engine")
    assert artifact is not None
    return artifact


@pytest.fixture(scope="session")
def running_server(
    fp8_build: BuildResult, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """The demo's deployment on a real Triton with its gateway; stops with the session."""
    from toolkit.pipeline.beside import with_gateway
    from toolkit.progress import Silent
    from toolkit.serving.deploy import prepare, start

    state_dir = tmp_path_factory.mktemp("state")
    deployment, repository = fp8_build.deployment, fp8_build.repository
    alone = prepare(deployment, repository, runtime=fp8_build.runtime, progress=Silent())
    plan = with_gateway(alone, deployment, state_dir)
    with start(plan, state_dir, progress=Silent(), tied=True) as server:
        yield server
