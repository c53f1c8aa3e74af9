"""The engine's thread dies: nobody waits for ever, and the process goes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served_double import Triton, render_double, start_triton, stop_triton
from triton_calls import Answer, ask

pytestmark = pytest.mark.e2e


@pytest.fixture
def slow_triton(checkpoint: Path, tmp_path: Path) -> Iterator[Triton]:
    repository = render_double(tmp_path, checkpoint, step_s=0.05)
    triton = start_triton(repository, "chat", tmp_path / "server.log")
    yield triton
    stop_triton(triton)


def model_process(triton: Triton) -> list[str]:
    path = Path(f"/proc/{triton.process.pid}/task/{triton.process.pid}/children")
    return path.read_text().split()


def test_a_dead_engine_ends_every_request_and_its_process(slow_triton: Triton) -> None:
    (pid,) = model_process(slow_triton)

    def run(number: int) -> Answer:
        if number < 6:
            return ask(slow_triton.grpc, text_input="the fox", max_tokens=400, stream=True)
        time.sleep(4)  # of the 20 that the others take: all of them have begun to answer
        return ask(slow_triton.grpc, text_input="the fox", max_tokens=400, seed=666)

    with ThreadPoolExecutor(7) as pool:
        answers = list(pool.map(run, range(7)))
    assert ["the engine failed" in (each.error or "") for each in answers] == [True] * 7, answers
    assert all(each.responses for each in answers[:6])
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_engine_that_cannot_start_says_why(checkpoint: Path, tmp_path: Path) -> None:
    repository = render_double(tmp_path, checkpoint)
    settings = repository / "chat/1/settings.json"
    content = json.loads(settings.read_text())
    del content["engine"]["max_queue_size"]
    settings.write_text(json.dumps(content))
    with pytest.raises(pytest.fail.Exception, match="max_queue_size"):
        start_triton(repository, "chat", tmp_path / "server.log")
