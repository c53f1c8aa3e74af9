"""deploy, status, logs, validate, stop: as a user runs them, against a real Triton.

Only the build is replaced: by the repository of the test's own model.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from toolkit.serving import probe
from toolkit.serving.launch import LaunchPlan
from toolkit.serving.state import RunDirectory

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]

FILE = """\
name: words
model: {source: ./model}
engine:
  limits: {max_batch_size: 4, max_input_len: 256, max_seq_len: 4096}
  kv_cache: {tokens_per_block: 8}
  batching: {max_queue_size: 8}
serving:
  ports: {http: 0, grpc: 0, metrics: 0}
  drain_timeout: 5s
gateway: {enabled: false}
"""
RUN = """\
import os, sys
from pathlib import Path
from types import SimpleNamespace
import toolkit.pipeline
from toolkit.pipeline import BuildResult

class Words(BuildResult):
    repository = Path(os.environ["WORDS_REPOSITORY"])

    def artifact(self, name):
        key = os.environ.get("WORDS_KEY")
        return SimpleNamespace(key=key) if key and name == "repository" else None

def build(deployment, *_, **__):
    if os.environ.get("WORDS_KEY") == "not to be built":
        sys.exit(9)
    return Words(deployment, (), True)

toolkit.pipeline.build = build
import toolkit.serving.preflight as preflight
preflight.importlib.util.find_spec = lambda name: name  # the test's model needs no openvino
from toolkit.cli import main
sys.exit(main())
"""


class Shell:
    """Runs ``toolkit`` in a directory with a deployment file."""

    def __init__(self, directory: Path, repository: Path) -> None:
        self.directory = directory
        self.faults = directory / "fault"
        (directory / "words.yaml").write_text(FILE)
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "WORDS_REPOSITORY": str(repository),
            "WORDS_FAULTS": str(self.faults),
        }

    def start(self, *words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, *words],
            cwd=cwd or self.directory,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *words: str, code: int = 0, cwd: Path | None = None) -> str:
        with self.start(*words, cwd=cwd) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        self.err = err
        return out


@pytest.fixture
def toolkit(make_plan: Callable[..., LaunchPlan], tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, make_plan().repository)
    yield shell
    if (tmp_path / ".toolkit/run/words/state.json").exists():
        shell("stop", "words", "--force")


def test_life_of_a_deployment(toolkit: Shell) -> None:
    shown = toolkit("deploy", "words.yaml")
    assert "golden prompts" in shown
    found = re.search(r"curl -s (http://\S+)/v2/models/words/generate", shown)
    assert found
    body = {"text_input": "The capital of France is", "max_tokens": 2}
    assert probe.post(f"{found[1]}/v2/models/words/generate", body, 10)[0] == 200

    again = json.loads(toolkit("deploy", "words.yaml", "--json", "--no-validate"))
    assert again["reused"]
    assert again["http"] == found[1]
    assert "starting" not in toolkit.err

    (status,) = json.loads(toolkit("status", "--json"))
    assert status["status"] == "ready"
    assert status["load"]["running"] == 0
    assert found[1] in toolkit("status", "words.yaml")

    assert "ready after" in toolkit("logs", "-n", "500")
    assert toolkit("logs", "words", "-n", "1").count("\n") == 1

    stopped = json.loads(toolkit("stop", "--json"))
    assert stopped == {"name": "words", "was_running": True, "status": "stopped"}
    assert "not running" in toolkit("stop", "words")
    assert probe.get(f"{found[1]}/v2/health/live", 2)[0] == 0


def test_failed_validation_stops_the_server_and_exits_5(toolkit: Shell) -> None:
    toolkit.faults.write_text("silent")
    assert "FAILED" in toolkit("deploy", "words.yaml", code=5)
    assert "golden prompts" in toolkit.err
    assert "the server was stopped" in toolkit.err
    assert "toolkit artifacts verify" in toolkit.err
    (status,) = json.loads(toolkit("status", "--json"))
    assert status["status"] == "stopped"
    toolkit("deploy", "words.yaml", "--keep", code=5)
    (status,) = json.loads(toolkit("status", "--json"))
    assert status["status"] == "ready"


def test_validate_is_a_gate_with_reports(toolkit: Shell) -> None:
    toolkit("validate", "words.yaml", code=6)
    toolkit("deploy", "words.yaml", "--no-validate")
    toolkit("validate", "words.yaml", "--only", "streaming", "--junit", "ci/junit.xml")
    suite = ElementTree.parse(toolkit.directory / "ci/junit.xml").getroot()[0]
    assert suite.get("tests") == "1"
    toolkit.faults.write_text("never-streams")
    out = toolkit("validate", "words.yaml", "--only", "streaming", "--json", code=5)
    assert json.loads(out)["checks"][0]["outcome"] == "failed"
    toolkit("validate", "words.yaml", "--only", "stream", code=2)
    assert "streaming" in toolkit.err


def test_what_is_not_deployed_has_one_exit_code(toolkit: Shell) -> None:
    for command in ("status", "logs", "stop", "validate", "bench"):
        toolkit(command, "words.yaml", code=6)
        assert "toolkit deploy FILE" in toolkit.err
    toolkit("logs", code=6)
    assert json.loads(toolkit("status", "--json")) == []


def test_server_of_another_file_is_not_validated(toolkit: Shell) -> None:
    toolkit.env["WORDS_KEY"] = "one"
    toolkit("deploy", "words.yaml", "--no-validate")
    toolkit("validate", "words.yaml", "--only", "streaming")
    toolkit.env["WORDS_KEY"] = "other"
    toolkit("validate", "words.yaml", "--only", "streaming", code=5)
    assert "--replace" in toolkit.err


def test_printed_commands_work_from_where_they_are_printed(
    toolkit: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    file = str(toolkit.directory / "words.yaml")
    shown = toolkit("deploy", file, "--no-validate", cwd=elsewhere)
    then = next(line for line in shown.splitlines() if line.startswith("then: "))
    commands = [shlex.split(each)[1:] for each in then.removeprefix("then: ").split(", ")]
    assert [words[0] for words in commands] == ["status", "logs", "stop"]
    assert "words" in toolkit(*commands[0], cwd=elsewhere)
    parent = ("--workspace", str(toolkit.directory))
    (status,) = json.loads(toolkit("status", *parent, "--json", cwd=elsewhere))
    assert status["status"] == "ready"
    toolkit(*commands[2], cwd=elsewhere)
    assert "not running" in toolkit("stop", "words", *parent, cwd=elsewhere)


def test_taken_port_is_told_before_the_build(toolkit: Shell) -> None:
    toolkit.env["WORDS_KEY"] = "not to be built"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        toolkit("deploy", "words.yaml", "--set", f"serving.ports.grpc={port}", code=6)
    assert "serving.ports.grpc" in toolkit.err


def test_other_settings_need_replace(toolkit: Shell) -> None:
    toolkit("deploy", "words.yaml", "--no-validate")
    changed = ("deploy", "words.yaml", "--no-validate", "--set", "serving.drain_timeout=6s")
    toolkit(*changed, code=6)
    assert "--replace" in toolkit.err
    assert not json.loads(toolkit(*changed, "--replace", "--json"))["reused"]


def test_foreground_shows_the_log_and_drains_on_sigterm(toolkit: Shell) -> None:
    process = toolkit.start("deploy", "words.yaml", "--foreground", "--quiet")
    directory = RunDirectory(toolkit.directory / ".toolkit", "words")
    deadline = time.monotonic() + 60
    while not ((state := directory.read()) and state.status == "ready"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    toolkit("deploy", "words.yaml", "--foreground", code=6)
    assert "running already" in toolkit.err
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Started HTTPService" in out
    assert "draining" in out
    state = directory.read()
    assert state is not None
    assert state.status == "stopped"


def test_following_the_log_ends_with_the_server(toolkit: Shell) -> None:
    toolkit("deploy", "words.yaml", "--no-validate")
    follower = toolkit.start("logs", "-f", "-n", "0")
    time.sleep(1)
    toolkit("stop", "words")
    out, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0
    assert "toolkit: stopped" in out


def test_server_commands(toolkit: Shell) -> None:
    installed = json.loads(toolkit("server", "install", "--json"))
    assert json.loads(toolkit("server", "info", "--json")) == {**installed, "problem": None}
    toolkit.env["TOOLKIT_TRITONSERVER"] = "/nowhere"
    toolkit("server", "info", code=2)
