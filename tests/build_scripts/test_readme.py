"""What the README tells a newcomer to type works, in the order it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from scripts import ROOT, parse

from toolkit import releases
from toolkit.cli.app import run
from toolkit.spec.loading import load

README = (ROOT / "README.md").read_text()
CONFIG = ROOT / "tests/golden/models/llama-3.1-8b-instruct.json"
ENGINES = ROOT / "examples/llama-8b-h100-engines.yaml"


def commands() -> list[list[str]]:
    """Each line of a code block that calls ``toolkit``, without its comment."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("toolkit ")]


def test_every_command_is_known() -> None:
    assert len(commands()) >= 12
    for words in commands():
        if words[0] != "artifacts":  # a group, whose parser takes no words
            parse(words)


def test_tour_asks_for_the_model_that_it_deploys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(next(words for words in commands() if words[0] == "init")) == 0
    name = load(Path("deploy.yaml"), environ={}).deployment.name
    asked = set(re.findall(r"/v2/models/([\w-]+)/", README))
    assert asked == {name}


def test_engine_example_can_be_planned_and_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(["plan", str(ENGINES), "--model-config", str(CONFIG)]) == 0
    migrate = next(words for words in commands() if words[0] == "migrate")
    target = migrate[migrate.index("--to") + 1]
    assert releases.release(target).container is not None
    assert run(["migrate", str(ENGINES), *migrate[2:]]) == 0
    written = migrate[migrate.index("--output") + 1]
    assert run(["plan", written, "--model-config", str(CONFIG)]) == 0


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda f: f.stem)
def test_example_loads(file: Path) -> None:
    assert load(file, environ={}).resolved().name
