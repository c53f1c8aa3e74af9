"""The SLURM scripts, with an srun that runs what it is given and a server that writes it down."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import SCRIPTS, Calls, parse

from toolkit.serving import launch, ranks
from toolkit.serving.install import ServerBinary
from toolkit.serving.ports import Endpoints
from toolkit.spec.models import Deployment


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    (tmp_path / "repository").mkdir()
    return Calls(tmp_path, ("toolkit", "srun", "trtllm-llmapi-launch", "tritonserver"))


def rank(calls: Calls, number: int, runtime: str) -> list[list[str]]:
    done = calls.run(
        "slurm/rank.sh",
        SLURM_PROCID=str(number),
        SLURM_JOB_ID="7",
        REPOSITORY=str(calls.directory / "repository"),
        RUNTIME=runtime,
        ADMIN_KEY="k3y",
        TRITONSERVER="tritonserver" if runtime == "tensorrt" else "/opt/tritonserver",
    )
    assert done.returncode == 0, done.stderr
    return calls.of("tritonserver" if runtime == "tensorrt" else "trtllm-llmapi-launch")


def ours(number: int) -> set[str]:
    """Flags of a rank as the toolkit's own launcher composes them, without values of the place."""
    deployment = Deployment.model_validate(
        {
            "name": "chat",
            "model": {"source": "./m"},
            "engine": {"runtime": "tensorrt", "parallelism": {"tensor": 2}},
            "serving": {"gpus": [0, 1]},
        }
    )
    binary = ServerBinary(Path("/opt/t"), Path("/opt/b"), "container")
    plan = launch.plan(
        deployment,
        Path("/r"),
        "d",
        binary,
        uses_gpu=True,
        ranks=ranks.ranks_of(deployment, "tensorrt"),
    )
    words = launch.command_line(
        plan, Path("/r"), Endpoints("h", 1, 2, 3), admin_key="k", shm_prefix="p_"
    )
    starts = [at for at, word in enumerate(words) if word == "-n"]
    return set(words[starts[number] : words.index(":", starts[number])])


@pytest.mark.parametrize("number", [0, 1])
def test_ranks_are_told_what_the_launcher_tells_them(calls: Calls, number: int) -> None:
    (words,) = rank(calls, number, "tensorrt")
    launcher = ours(number)
    # Every flag is one that the launcher uses, and what decides about loading is the same.
    assert {word.partition("=")[0] for word in words} <= {
        word.partition("=")[0] for word in launcher
    }
    loading = ("--model-control-mode", "--load-model", "--disable-auto", "--exit-on", "--strict")
    assert {word for word in words if word.startswith(loading)} == {
        word for word in launcher if word.startswith(loading)
    }


def test_ranks_do_not_share_memory_and_guard_their_endpoints(calls: Calls) -> None:
    for number in (0, 1):
        rank(calls, number, "tensorrt")
    first, second = calls.of("tritonserver")
    shm = "--backend-config=python,shm-region-prefix-name=toolkit_7_"
    assert f"{shm}0_" in first
    assert f"{shm}1_" in second
    assert "--http-address=127.0.0.1" in first
    assert any(word.startswith("--http-restricted-api=") and "k3y" in word for word in first)


def test_llm_api_goes_through_its_launcher_on_every_rank(calls: Calls) -> None:
    for number in (0, 1):
        rank(calls, number, "pytorch")
    first, second = calls.of("trtllm-llmapi-launch")
    assert first[0] == second[0] == "/opt/tritonserver"
    # The launcher splits its words at blanks once more.
    assert not any(" " in word for word in first)


@pytest.mark.parametrize(
    ("place", "text", "tasks", "code"),
    [
        ("tensorrt_llm/config.pbtxt", 'key: "gpu_device_ids" value: "0,1;2,3"', "1", 2),
        ("tensorrt_llm/config.pbtxt", 'key: "gpu_device_ids" value: "0,1"', "2", 0),
        ("chat/1/settings.json", '{"engine": {"gpus": [[0], [1]]}}', "1", 2),
        ("tensorrt_llm_draft/config.pbtxt", "", "2", 2),
        ("tensorrt_llm_draft/config.pbtxt", "", "1", 0),
    ],
)
def test_what_needs_the_orchestrator_is_not_started_by_srun(
    calls: Calls, place: str, text: str, tasks: str, code: int
) -> None:
    file = calls.directory / "repository" / place
    file.parent.mkdir(parents=True)
    file.write_text(text)
    done = calls.run(
        "slurm/rank.sh",
        SLURM_PROCID="0",
        SLURM_NTASKS=tasks,
        REPOSITORY=str(calls.directory / "repository"),
        RUNTIME="tensorrt",
        ADMIN_KEY="k",
        TRITONSERVER="tritonserver",
    )
    assert done.returncode == code, done.stderr
    assert ("FLAVOUR=docker" in done.stderr) == (code == 2)
    assert bool(calls.of("tritonserver")) == (code == 0)


def test_unknown_runtime(calls: Calls) -> None:
    done = calls.run(
        "slurm/rank.sh",
        SLURM_PROCID="0",
        REPOSITORY=str(calls.directory),
        ADMIN_KEY="k",
        RUNTIME="openvino",
    )
    assert done.returncode == 2


def submit(calls: Calls, **variables: str) -> list[list[str]]:
    file = calls.directory / "deployment.yaml"
    file.write_text("name: chat\nmodel: {source: ./m}\n")
    workspace = calls.directory / "ws"
    workspace.mkdir(exist_ok=True)
    # What the build would leave behind.
    (workspace / "slurm-7").symlink_to(calls.directory / "repository")
    done = calls.run(
        "slurm/serve.sbatch",
        str(file),
        SLURM_JOB_ID="7",
        SLURM_PROCID="0",
        SCRIPTS=str(SCRIPTS / "slurm"),
        TOOLKIT_WORKSPACE=str(workspace),
        IMAGE="registry#toolkit:1",
        **variables,
    )
    assert done.returncode == 0, done.stderr
    assert not (workspace / "slurm-7").exists()
    return calls.of("srun")


def test_job_builds_once_and_serves_on_every_task(calls: Calls) -> None:
    build, serve = submit(calls, RUNTIME="tensorrt", TRITONSERVER="tritonserver")
    assert {"--ntasks=1", "--nodes=1"} <= set(build)
    assert "--mpi=pmix" in serve
    for words in (build, serve):
        assert "--container-image=registry#toolkit:1" in words
    (line,) = calls.of("toolkit")
    taken = parse(line)
    assert taken["where"] == "local"
    assert taken["output"] == calls.directory / "ws/slurm-7"
    (server,) = calls.of("tritonserver")
    assert f"--model-repository={calls.directory / 'repository'}" in server


def test_failed_server_fails_the_job(calls: Calls) -> None:
    file = calls.directory / "deployment.yaml"
    file.write_text("")
    (calls.directory / "ws").mkdir()
    (calls.directory / "ws/slurm-7").symlink_to(calls.directory / "repository")
    done = calls.run(
        "slurm/serve.sbatch",
        str(file),
        SLURM_JOB_ID="7",
        SLURM_PROCID="0",
        SCRIPTS=str(SCRIPTS / "slurm"),
        TOOLKIT_WORKSPACE=str(calls.directory / "ws"),
        IMAGE="i",
        FAILS="--strict-readiness=true",
    )
    assert done.returncode == 7


def test_without_pyxis_the_toolkit_launches_its_own_container(calls: Calls) -> None:
    file = calls.directory / "deployment.yaml"
    file.write_text("name: chat\nmodel: {source: ./m}\n")
    done = calls.run("slurm/serve.sbatch", str(file), SLURM_JOB_ID="7", FLAVOUR="docker")
    assert done.returncode == 0, done.stderr
    (line,) = calls.of("toolkit")
    assert parse(line)["foreground"] is True


def test_gpus_are_asked_for_by_node() -> None:
    """A rank that sees one GPU only cannot pick its own by its number."""
    lines = (SCRIPTS / "slurm/serve.sbatch").read_text().splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH ")]
    assert any(line.startswith("#SBATCH --gpus-per-node=") for line in directives)
    assert not any("gpus-per-task" in line for line in directives)
