"""Golden deployments from the command line of a machine that has nothing: plan, build, deploy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import golden
import pytest

from toolkit.pipeline.build import NOWHERE

PLACEHOLDERS = {"<token>", "<key>", "<free>"}


@pytest.fixture(autouse=True)
def machine(tmp_path: Path) -> Iterator[None]:
    with golden.bare_machine(tmp_path):
        yield


@pytest.mark.parametrize("name", golden.names())
def test_plan_and_build_agree_and_touch_nothing(name: str, tmp_path: Path) -> None:
    planned = golden.told(name, ["plan"], tmp_path)
    built = golden.told(name, ["build", "--dry-run"], tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert built["runtime"] == planned["runtime"]
    assert built["commands"] == planned["commands"]
    assert bool(built["commands"]) == (planned["runtime"] == "tensorrt")
    assert bool(planned["arguments"]) == (planned["runtime"] == "pytorch")
    assert not any("serving.image" in note for note in planned["notes"])


@pytest.mark.parametrize("name", golden.names())
def test_a_build_tells_the_repository_that_it_would_render(name: str, tmp_path: Path) -> None:
    told = golden.told(name, ["build", "--dry-run"], tmp_path)["files"]
    kept = golden.kept_texts(name)
    del kept[golden.FILES]
    there = {place: text.replace(NOWHERE, str(golden.SERVED_AT)) for place, text in told.items()}
    assert there == kept


@pytest.mark.parametrize("name", golden.names())
def test_commands_are_the_kept_ones(name: str, tmp_path: Path) -> None:
    kept = (golden.GOLDEN / name / golden.COMMANDS).read_text()
    text = golden.commands_text(name, tmp_path)
    assert text == kept, f"{name}: PYTHONPATH=. python tests/nvidia/golden.py"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", golden.names())
def test_the_server_is_started_whole(name: str, tmp_path: Path) -> None:
    """On the deployment's GPUs, in its image, with every word filled in."""
    made = golden.deployment(name)
    dry = golden.told(name, ["deploy", "--dry-run"], tmp_path)
    assert dry["launcher"] == "container"
    (start,) = (step["command"] for step in dry["steps"] if step["why"] == "start the server")
    devices = ",".join(map(str, made.serving.gpus))
    assert start[start.index("--gpus") + 1] == f'"device={devices}"'
    image = golden.told(name, ["plan"], tmp_path)["container"]
    assert start[start.index(image) + 1] in ("mpirun", "/opt/tritonserver/bin/tritonserver")
    words = " ".join(start).replace("repository/<key>/repository", "")
    assert set(re.findall(r"<[a-z ]+>", words)) <= PLACEHOLDERS
    assert "None" not in words
