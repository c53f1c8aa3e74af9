"""Scripts outside the package: their shell, and every ``toolkit`` command line in them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scripts import ROOT, SCRIPTS, Calls, parse

from toolkit import releases

SHELL = sorted(path for path in SCRIPTS.rglob("*") if path.suffix in (".sh", ".sbatch"))


def shellcheck() -> str | None:
    beside = Path(sys.executable).with_name("shellcheck")
    return str(beside) if beside.exists() else shutil.which("shellcheck")


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    file = tmp_path / "d" / "deployment.yaml"
    file.parent.mkdir()
    file.write_text("name: chat\nmodel: {source: ./m}\n")
    return file


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path, ("toolkit", "docker", "podman", "srun", "trtllm-llmapi-launch"))


def test_there_are_scripts() -> None:
    names = {path.name for path in SHELL}
    assert {"pipeline.sh", "serve.sbatch", "rank.sh", "build_image.sh", "demo.sh"} <= names


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_shell_is_strict_and_executable(script: Path) -> None:
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert script.stat().st_mode & 0o111
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shellcheck() is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    done = subprocess.run([str(shellcheck()), str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_parser_of_this_test_would_notice() -> None:
    with pytest.raises(Exception, match="no-such-flag"):
        parse(["build", "f.yaml", "--no-such-flag"])
    assert parse(["build", "f.yaml", "--offline"])["offline"] is True


def test_whole_pipeline_uses_the_real_command_line(calls: Calls, deployment: Path) -> None:
    report = calls.directory / "reports/bench/report.json"
    report.parent.mkdir(parents=True)
    report.write_text("{}")
    done = calls.run("ci/pipeline.sh", "all", str(deployment), BUILD_WHERE="container")
    assert done.returncode == 0, done.stderr
    lines = calls.of("toolkit")
    assert [words[0] for words in lines] == [
        *("doctor", "build", "deploy", "validate", "bench", "stop")
    ]
    taken = [parse(words) for words in lines]
    assert taken[1]["where"] == "container"
    assert taken[3]["junit"] == Path("reports/validation.xml")
    assert "no baseline" in done.stdout


@pytest.mark.parametrize("step", ["check", "build", "validate", "bench", "stop"])
def test_each_step_alone(calls: Calls, deployment: Path, step: str) -> None:
    report = calls.directory / "reports/bench/report.json"
    report.parent.mkdir(parents=True)
    report.write_text("{}")
    done = calls.run("ci/pipeline.sh", step, str(deployment))
    assert done.returncode == 0, done.stderr
    assert calls.of("toolkit")
    for words in calls.of("toolkit"):
        parse(words)


def test_failed_step_stops_the_pipeline_and_the_server(calls: Calls, deployment: Path) -> None:
    done = calls.run("ci/pipeline.sh", "all", str(deployment), FAILS="validation.xml")
    assert done.returncode == 7
    assert [words[0] for words in calls.of("toolkit")][-2:] == ["validate", "stop"]


def test_baseline_is_kept_only_when_told(calls: Calls, deployment: Path) -> None:
    report = calls.directory / "reports/bench/report.json"
    report.parent.mkdir(parents=True)
    report.write_text("{}")
    baseline = calls.directory / "reports/baseline/report.json"
    calls.run("ci/pipeline.sh", "bench", str(deployment))
    assert not baseline.exists()
    calls.run("ci/pipeline.sh", "bench", str(deployment), KEEP_BASELINE="1")
    assert baseline.exists()


def test_unknown_step(calls: Calls, deployment: Path) -> None:
    assert calls.run("ci/pipeline.sh", "launch", str(deployment)).returncode == 2
    assert calls.run("ci/pipeline.sh").returncode != 0


def test_build_in_container(calls: Calls, deployment: Path) -> None:
    done = calls.run(
        "build_in_container.sh", str(deployment), "--offline", GPUS="0,2", HF_TOKEN="hf_secret"
    )
    assert done.returncode == 0, done.stderr
    (words,) = calls.of("docker")
    assert words[words.index("--gpus") + 1] == '"device=0,2"'
    assert words[words.index("--env") + 1] == "HF_TOKEN"
    assert "hf_secret" not in " ".join(words)
    inner = words[words.index("toolkit") + 1 :]
    assert parse(inner)["offline"] is True
    assert "--privileged" not in words


def test_build_in_container_mounts_a_workspace_named_from_here(
    calls: Calls, deployment: Path
) -> None:
    done = calls.run("build_in_container.sh", str(deployment), GPUS="none", TOOLKIT_WORKSPACE="ws")
    assert done.returncode == 0, done.stderr
    (words,) = calls.of("docker")
    place = calls.directory / "ws"
    assert f"type=bind,source={place},target={place}" in words
    assert words[words.index("--workspace") + 1] == str(place)


def test_build_in_container_with_podman_and_without_gpus(calls: Calls, deployment: Path) -> None:
    podman = {"TOOLKIT_CONTAINER_ENGINE": "podman"}
    calls.run("build_in_container.sh", str(deployment), GPUS="0,1", **podman)
    calls.run("build_in_container.sh", str(deployment), GPUS="none", **podman)
    some, none = calls.of("podman")
    assert [some[at + 1] for at, word in enumerate(some) if word == "--device"] == [
        "nvidia.com/gpu=0",
        "nvidia.com/gpu=1",
    ]
    assert "--device" not in none


def test_calls_of_the_demo_are_known() -> None:
    """What is not run here is read: the words after the toolkit's name."""
    text = (SCRIPTS / "demo.sh").read_text()
    found = re.findall(r'^\s*(?:url=.*)?"\$toolkit" (.+?)(?: >/dev/null.*)?$', text, re.MULTILINE)
    assert len(found) >= 4
    for line in found:
        words = [word.strip('"') for word in line.partition(" | ")[0].split()]
        parse([re.sub(r"\$\w+", "x", word) for word in words])


@pytest.mark.parametrize("fails", ["deploy", "bench", "nothing"])
def test_demo_stops_its_own_server_and_no_other(calls: Calls, fails: str) -> None:
    (calls.directory / "chat.yaml").write_text("name: chat # as the user's\n")
    program = str(calls.directory / "bin/toolkit")
    calls.run("demo.sh", program, "chat.yaml", FAILS=fails)
    stopped = [words[1:] for words in calls.of("toolkit") if words[0] == "stop"]
    assert stopped == [["chat-demo"]]


def load(name: str) -> dict[str, object]:
    return yaml.load((SCRIPTS / "ci" / name).read_text(), Loader=yaml.BaseLoader)


def steps_called(text: str) -> set[str]:
    return set(re.findall(r"build_scripts/ci/pipeline\.sh (\w+)", text))


@pytest.mark.parametrize("name", ["gitlab.yml", "github.yml"])
def test_pipelines_call_every_step_and_no_toolkit_themselves(name: str) -> None:
    assert load(name)
    text = (SCRIPTS / "ci" / name).read_text()
    assert steps_called(text) == {"check", "build", "validate", "bench", "stop"}
    assert not re.search(r"^\s*(?:- |run: )toolkit ", text, re.MULTILINE)


def test_gitlab_stops_uploads_and_caches_whatever_happens() -> None:
    pipeline = load("gitlab.yml")
    job = pipeline["toolkit-deploy"]
    assert isinstance(job, dict)
    assert "stop" in job["after_script"][0]
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"]["junit"].endswith("validation.xml")
    common = pipeline[".toolkit"]
    assert isinstance(common, dict)
    assert [".toolkit", ".cache/toolkit"] in [cache["paths"] for cache in common["cache"]]


def test_github_stops_uploads_and_caches_whatever_happens() -> None:
    jobs = load("github.yml")["jobs"]
    assert isinstance(jobs, dict)
    steps = jobs["deploy"]["steps"]
    always = [step for step in steps if step.get("if") == "always()"]
    assert any("stop" in step.get("run", "") for step in always)
    assert any("upload-artifact" in step.get("uses", "") for step in always)
    assert any("actions/cache@" in step.get("uses", "") for step in steps)


def dockerfile() -> str:
    return (SCRIPTS / "container/Dockerfile").read_text()


def test_base_image_is_that_of_the_default_release() -> None:
    (image,) = re.findall(r"^ARG IMAGE=(\S+)$", dockerfile(), re.MULTILINE)
    release = releases.default_release("pytorch")
    assert release.container is not None
    assert image == release.container.name


def test_image_runs_without_root_and_tells_its_health() -> None:
    text = dockerfile()
    lines = [line.split() for line in text.splitlines()]
    users = [words[1] for words in lines if words and words[0] == "USER"]
    assert users == ["toolkit"]
    assert "HEALTHCHECK" in text
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    words = yaml.safe_load(command)
    assert words[0] == "toolkit"
    assert parse(words[1:])["foreground"] is True


def test_settings_of_the_image_are_fields_of_the_file() -> None:
    from toolkit.spec.models import Deployment

    text = dockerfile()
    names = re.findall(r"TOOLKIT__([A-Z_]+)=", text)
    assert names
    for name in names:
        section: object = Deployment
        for part in name.lower().split("__"):
            field = section.model_fields[part]  # type: ignore[attr-defined]
            section = field.annotation


def test_base_image_is_printed_for_a_release() -> None:
    script = SCRIPTS / "container/prepare_wheels.py"
    for version in ("", "1.1.0"):
        done = subprocess.run(
            [sys.executable, str(script), "image", version],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == 0, done.stderr
        wanted = releases.release(version) if version else releases.default_release("pytorch")
        assert wanted.container is not None
        assert done.stdout.strip() == wanted.container.name
    unknown = subprocess.run(
        [sys.executable, str(script), "image", "9.9.9"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert unknown.returncode == 1
    assert "Traceback" not in unknown.stderr


def test_the_demo_asks_its_own_server_and_no_other_of_the_workspace() -> None:
    text = (SCRIPTS / "demo.sh").read_text()
    assert '"$toolkit" status "$name" --json' in text
