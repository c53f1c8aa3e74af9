"""Text through Triton is the text of the engine alone, whatever else runs at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from bare_engine import PROMPTS, BareEngine, bare_engine

if TYPE_CHECKING:
    from toolkit.pipeline import BuildResult
    from toolkit.serving.deploy import RunningServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TOKENS = 24
AT_ONCE = 32


@pytest.fixture(scope="module")
def direct(fp8_build: BuildResult) -> Iterator[BareEngine]:
    """The demo's engine in this process."""
    model = fp8_build.repository / fp8_build.deployment.name / "1"
    with bare_engine(model, kv_cache_reuse=False) as engine:
        yield engine


@pytest.fixture(scope="module")
def alone(direct: BareEngine) -> list[str]:
    """What the engine says when it has one request at a time and an empty cache."""
    return direct.texts(PROMPTS, TOKENS)


def test_the_prompts_are_worth_asking(alone: list[str]) -> None:
    assert len(PROMPTS) == 50
    assert len(set(alone)) == 50


def test_the_engine_alone_and_in_a_batch(direct: BareEngine, alone: list[str]) -> None:
    assert direct.texts(PROMPTS, TOKENS, at_once=AT_ONCE) == alone


def test_through_triton_one_at_a_time(
    running_server: RunningServer, fp8_build: BuildResult, alone: list[str]
) -> None:
    from toolkit.serving.validate.client import Client

    client = Client(running_server.endpoints, fp8_build.deployment.name)
    assert [client.ask(prompt, TOKENS).text for prompt in PROMPTS] == alone


def test_through_triton_many_at_once(
    running_server: RunningServer, fp8_build: BuildResult, alone: list[str]
) -> None:
    from toolkit.serving.validate.client import Client

    client = Client(running_server.endpoints, fp8_build.deployment.name)
    answers = client.ask_all(PROMPTS[:AT_ONCE], TOKENS) + client.ask_all(PROMPTS[AT_ONCE:], TOKENS)
    assert [answer.text for answer in answers] == alone
