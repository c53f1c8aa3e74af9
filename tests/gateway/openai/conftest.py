"""The API in front of a stand-in or of a real deployment, and the official client."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

    from toolkit.gateway.openai import ServedModel
    from toolkit.workspace import Artifact

REAL = "TOOLKIT_TEST_GATEWAY"
"""URL of a running gateway (as http://127.0.0.1:9000), else one is deployed."""


@dataclass(frozen=True)
class Target:
    """A deployment that the behaviours are checked against."""

    url: str
    model: str
    max_input_len: int
    max_seq_len: int
    guided: bool = False
    real: bool = False

    def client(self) -> OpenAI:
        from openai import OpenAI

        return OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=120)

    def async_client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=120)


@pytest.fixture(scope="session")
def sample_model(sample_checkpoint: Artifact) -> ServedModel:
    """The sample checkpoint's tokenizer and chat template."""
    from toolkit.gateway.openai import ServedModel

    return ServedModel.load(
        sample_checkpoint.path,
        name="smollm2",
        max_input_len=1792,
        max_seq_len=2048,
        classes=("interactive", "batch"),
    )


@pytest.fixture(scope="session", params=["stand-in", pytest.param("real", marks=pytest.mark.e2e)])
def target(request: pytest.FixtureRequest, sample_model: ServedModel) -> Iterator[Target]:
    """The API in front of a stand-in generator, and in front of a real Triton."""
    from openai_stand_in import Talker, served_in_thread

    from toolkit.gateway.openai import create_app

    if request.param == "real" and REAL in os.environ:
        yield Target(os.environ[REAL], "smollm2", 1792, 2048, real=True)
        return
    if request.param == "real":
        app = _real(request)
    else:
        app = create_app({sample_model.name: sample_model}, Talker(sample_model.vocabulary))
    with served_in_thread(app, lifespan="auto") as port:
        real = request.param == "real"
        yield Target(f"http://127.0.0.1:{port}", sample_model.name, 1792, 2048, real=real)


def _real(request: pytest.FixtureRequest) -> Any:
    """The whole gateway's application, with the sample deployment's server behind it."""
    from toolkit.gateway.plan import join, plan_model
    from toolkit.gateway.server import Gateway

    server = request.getfixturevalue("running_server")
    build = request.getfixturevalue("fp8_build")
    metrics = server.metrics_url.removesuffix("/metrics").rpartition(":")[2]
    address = f"{server.grpc_url}/{metrics}"
    tokenizer = request.getfixturevalue("sample_checkpoint").path
    plan = plan_model(build.deployment, tokenizer, (address,))
    return Gateway(join([plan], build.deployment.gateway)).app()


@pytest.fixture(scope="session")
def client(target: Target) -> Iterator[OpenAI]:
    """The official client."""
    with target.client() as client:
        yield client
