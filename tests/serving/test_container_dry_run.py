"""``deploy --dry-run``: everything is told, nothing is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.serving import dry_run
from toolkit.serving.dry_run import describe, masked
from toolkit.spec.models import Deployment

ROOT = Path(__file__).parents[2]
FILE = """\
name: chat
model: {source: hf://meta-llama/Llama-3.1-70B-Instruct@main}
engine: {runtime: tensorrt, parallelism: {tensor: 2}}
serving: {gpus: [0, 1], launcher: container, ports: {http: 0}}
"""


def toolkit(directory: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOME": str(directory / "home"),
        "TOOLKIT_CACHE": str(directory / "cache"),
        # No engine at all: what would run has to be told all the same.
        "PATH": str(directory / "empty"),
        "HF_TOKEN": "hf_very_secret",
    }
    # A library that an earlier test imported may have set it in this process already.
    environment.pop("TOKENIZERS_PARALLELISM", None)
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", *words],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def tree(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "d.yaml").write_text(FILE)
    return tmp_path


def test_container_deployment_is_told_without_docker_gpu_or_network(directory: Path) -> None:
    before = tree(directory)
    told = json.loads(toolkit(directory, "deploy", "d.yaml", "--dry-run", "--json"))
    assert tree(directory) == before
    assert told["launcher"] == "container"
    commands = [step["command"] for step in told["steps"]]
    assert [command[:2] for command in commands] == [
        ["docker", "info"],
        ["docker", "image"],
        ["docker", "pull"],
        ["docker", "run"],
        [sys.executable, "-m"],
        ["docker", "rm"],
    ]
    assert "--http-port=<free>" in commands[3]
    assert "127.0.0.1:<free>:<free>" in commands[3]
    assert "hf_very_secret" not in json.dumps(told)
    assert any(path.endswith("run/chat/admin.key") for path in told["files"])


def test_text_is_commands_that_a_shell_takes(directory: Path) -> None:
    before = tree(directory)
    text = toolkit(directory, "deploy", "d.yaml", "--dry-run")
    assert tree(directory) == before
    (line,) = (line for line in text.splitlines() if line.startswith("docker run "))
    words = subprocess.run(
        ["bash", "-c", f"set -- {line}; printf '%s\\n' \"$@\""], capture_output=True, text=True
    ).stdout.splitlines()
    assert '"device=0,1"' in words
    assert "mpirun" in words


def test_binary_deployment_tells_what_it_would_install(directory: Path) -> None:
    (directory / "d.yaml").write_text("name: chat\nmodel: {source: 'sample:smollm2-135m'}\n")
    before = tree(directory)
    told = json.loads(toolkit(directory, "deploy", "d.yaml", "--dry-run", "--json"))
    assert tree(directory) == before
    assert told["launcher"] == "binary"
    assert [step["why"] for step in told["steps"]] == [
        "install the server of nvidia-pytriton 0.7.0",
        "start the server",
        "once it is ready, start the gateway",
    ]
    without = ("--set", "gateway.enabled=false", "--json")
    told = json.loads(toolkit(directory, "deploy", "d.yaml", "--dry-run", *without))
    assert "gateway" not in told["steps"][-1]["why"]
    assert told["environment"]["TOKENIZERS_PARALLELISM"] == "false"


def test_it_tells_what_the_launch_really_passes(tmp_path: Path) -> None:
    deployment = Deployment.model_validate({"name": "chat", "model": {"source": "./m"}})
    found = describe(
        deployment, "openvino", tmp_path / "r", tmp_path, {"API_KEY": "k", "COLOUR": "red"}
    )
    assert found.environment["API_KEY"] == dry_run.MASK
    assert found.environment["COLOUR"] == "red"
    start = found.steps[-1]
    assert start.command[0].endswith("tritonserver")
    assert f"--model-repository={tmp_path}/run/chat/repository" in start.command


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True),
        ("API_KEY", True),
        ("DB_PASSWORD", True),
        ("TOKENIZERS_PARALLELISM", False),
    ],
)
def test_secrets_are_known_by_their_names(name: str, secret: bool) -> None:
    assert (masked(name, "v") == dry_run.MASK) is secret


def test_two_seconds_are_enough(directory: Path) -> None:
    """Processor time, which other work on the machine does not change."""
    before = os.times()
    toolkit(directory, "deploy", "d.yaml", "--dry-run", "--json")
    after = os.times()
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 2.0
