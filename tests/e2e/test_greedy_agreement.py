"""The build records what the checkpoint says; deploy and validate hold the server against it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from toolkit.cli.app import run
from toolkit.pipeline import references
from toolkit.workspace import Workspace

if TYPE_CHECKING:
    from toolkit.pipeline import BuildResult

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "smollm2.yaml")
PLAIN = ("name=plain", "quantization.weights=none")
FREE = tuple(f"serving.ports.{name}=0" for name in ("http", "grpc", "metrics"))
SETTINGS = [word for each in (*PLAIN, *FREE) for word in ("--set", each)]
NAME = "greedy agreement"


@pytest.fixture
def root(store: Workspace, plain_build: BuildResult) -> Iterator[Path]:
    """A workspace of its own that holds the plain build, by hard links."""
    root = store.root.parent / f"agreeing-{os.getpid()}"
    for stage in plain_build.stages:
        target = root / stage.artifact.path.relative_to(store.root)
        shutil.copytree(stage.artifact.path, target, copy_function=os.link)
    try:
        yield root
    finally:
        run(["stop", "plain", "--workspace", str(root), "--quiet"])
        shutil.rmtree(root)


def toolkit(
    capsys: pytest.CaptureFixture[str], root: Path, *words: str, code: int = 0
) -> dict[str, Any]:
    capsys.readouterr()
    common = [EXAMPLE, "--workspace", str(root), *SETTINGS, "--json", "--quiet"]
    assert run([words[0], *common, *words[1:]]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def agreement(report: dict[str, Any]) -> tuple[str, str]:
    found = next(each for each in report["checks"] if each["name"] == NAME)
    return found["outcome"], found["evidence"]


def test_a_server_is_held_against_its_checkpoint(
    capsys: pytest.CaptureFixture[str], root: Path, plain_build: BuildResult
) -> None:
    deployed = toolkit(capsys, root, "deploy")
    outcome, evidence = agreement(deployed["validation"])
    assert (outcome, evidence[:6]) == ("passed", "100.0%")

    recorded = plain_build.artifact(references.KIND)
    assert recorded is not None
    file = root / references.KIND / recorded.path.name / references.FILE
    cases = json.loads(file.read_text())
    assert len(cases) == 4
    file.unlink()  # the original is linked to it
    file.write_text(json.dumps([{**each, "tokens": each["tokens"][::-1]} for each in cases]))
    failed = toolkit(capsys, root, "validate", "--only", NAME, code=5)
    outcome, evidence = agreement(failed)
    assert outcome == "failed"
    assert "differs at token 0" in evidence
