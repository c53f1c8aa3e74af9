"""``build --where container``: the same build inside, its exit code and output passed through."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from container_double import IMAGE, FakeDocker, fake_docker

from toolkit.errors import EnvironmentError_
from toolkit.pipeline import container_build, container_wheels, in_container
from toolkit.pipeline.container_build import ContainerBuild
from toolkit.pipeline.container_wheels import REQUIRED, closure, wheels_for
from toolkit.progress import Silent
from toolkit.serving import container_engines, install
from toolkit.serving.container_run import Container
from toolkit.spec.models import Deployment
from toolkit.workspace import Workspace

ROOT = Path(__file__).parents[2]
FILE = f"""\
name: words
model: {{source: ./model}}
engine: {{runtime: openvino}}
serving: {{image: "{IMAGE}"}}
"""
NOWHERE = install.ServerBinary(Path("/nowhere"), Path("/nowhere"), "path")

Toolkit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[FakeDocker]:
    with fake_docker(tmp_path / "docker", NOWHERE) as daemon:
        yield daemon


@pytest.fixture
def toolkit(docker: FakeDocker, tmp_path: Path) -> Toolkit:
    (tmp_path / "words.yaml").write_text(FILE)

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{docker.directory}:{os.environ['PATH']}",
            "TOOLKIT_CACHE": str(tmp_path / "cache"),
            **variables,
        }
        environment.pop("DOCKER_HOST", None)
        return subprocess.run(
            [sys.executable, "-m", "toolkit", "build", "words.yaml", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    return run


def test_exit_code_of_the_inner_build_is_passed_on(toolkit: Toolkit, docker: FakeDocker) -> None:
    local = toolkit()
    inside = toolkit("--where", "container", "--quiet")
    assert inside.returncode == local.returncode == 2
    (run,) = docker.runs
    assert run.command[run.command.index("--where") + 1] == "local"
    assert run.command[-1] == "--quiet"
    assert docker.containers == {}


def test_of_a_build_that_fails_inside_nothing_but_json_is_on_stdout(
    toolkit: Toolkit, docker: FakeDocker
) -> None:
    docker.greeting = "== Triton Inference Server ==\n\n"
    done = toolkit("--where", "container", "--json", "--quiet")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "== Triton Inference Server ==" in done.stderr


@pytest.mark.slow
def test_build_inside_is_the_build(
    toolkit: Toolkit, docker: FakeDocker, plain_build: object, store: Workspace
) -> None:
    """With everything built before, so that it is the passing through that is tested."""
    docker.greeting = "== Triton Inference Server ==\n\n"
    file = ROOT / "examples" / "smollm2.yaml"
    words = ("--set", f"serving.image={IMAGE}", "--set", "name=plain")
    words += ("--set", "quantization.weights=none", "--workspace", str(store.root))
    (docker.directory.parent / "words.yaml").write_text(file.read_text())
    done = toolkit("--where", "container", "--json", *words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["complete"]
    assert Path(told["repository"]).is_dir()


def test_secrets_travel_by_name(toolkit: Toolkit, docker: FakeDocker) -> None:
    toolkit("--where", "container", HF_TOKEN="hf_very_secret")
    (run,) = docker.runs
    assert "HF_TOKEN" in run.all("--env")
    assert docker.environments[0]["HF_TOKEN"] == "hf_very_secret"
    assert not any("hf_very_secret" in word for words in docker.asked for word in words)


def test_only_the_workspace_and_the_cache_can_be_written(
    toolkit: Toolkit, docker: FakeDocker, tmp_path: Path
) -> None:
    toolkit("--where", "container")
    (run,) = docker.runs
    writable = {mount["target"] for mount in run.mounts if "readonly" not in mount}
    assert writable == {"/cache", str(tmp_path / ".toolkit")}
    read = {mount["target"]: mount["source"] for mount in run.mounts if "readonly" in mount}
    assert read["/opt/toolkit-source/toolkit"] == str(ROOT / "toolkit")
    assert read[str(tmp_path)] == str(tmp_path)
    assert run.all("--cap-drop") == ["ALL"]
    assert run.all("--gpus") == []


def test_offline_means_no_network_inside(toolkit: Toolkit, docker: FakeDocker) -> None:
    toolkit("--where", "container", "--offline")
    (run,) = docker.runs
    assert run.all("--network") == ["none"]
    assert "--offline" in run.command


def test_overrides_are_handed_on(toolkit: Toolkit, docker: FakeDocker) -> None:
    toolkit("--where", "container", "--set", "engine.threads=3")
    (run,) = docker.runs
    assert run.command[run.command.index("--set") + 1] == "engine.threads=3"


def test_dry_run_tells_the_commands_and_touches_nothing(
    toolkit: Toolkit, docker: FakeDocker, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))
    done = toolkit("--where", "container", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert set(tmp_path.rglob("*")) == before
    assert docker.asked == []
    commands = json.loads(done.stdout)["commands"]
    assert [words[1] for words in commands] == ["pull", "run", "run"]


def test_no_image_for_the_cpu_runtime(toolkit: Toolkit, tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text("name: words\nmodel: {source: ./m}\n")
    done = toolkit("--where", "container")
    assert done.returncode == 2
    assert "serving.image" in done.stderr


def test_folder_of_the_link_can_be_written_too(tmp_path: Path) -> None:
    made = Deployment.model_validate({"name": "w", "model": {"source": str(tmp_path / "m")}})
    (tmp_path / "m").mkdir()
    build = ContainerBuild(
        file=tmp_path / "d/w.yaml",
        deployment=made,
        workspace=tmp_path / "ws",
        output=tmp_path / "out/link",
    )
    box = Container(engine="docker", program=Path("docker"), image=IMAGE, user="1:1")
    words = container_build.command(build, box, "n", tmp_path / "wheels")
    mounts = [words[at + 1] for at, word in enumerate(words) if word == "--mount"]
    written = {re.sub(r".*target=", "", mount) for mount in mounts if "readonly" not in mount}
    assert written == {str(tmp_path / "ws"), str(tmp_path / "out")}
    read = {re.sub(r".*target=([^,]*),.*", r"\1", mount) for mount in mounts if "readonly" in mount}
    assert str(tmp_path / "m") in read
    targets = [re.sub(r".*target=([^,]*).*", r"\1", mount) for mount in mounts]
    assert len(set(targets)) == len(targets)


def test_required_packages_are_those_of_pyproject() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    names = re.findall(r'^\s*"([A-Za-z0-9-]+)', block[1], re.MULTILINE)
    assert tuple(names) == REQUIRED


def test_closure_has_versions_of_what_is_below() -> None:
    found = closure(["typer", "tritonclient"])
    assert {"typer", "rich", "tritonclient", "grpcio", "numpy"} <= set(found)
    assert "torch" not in found
    assert all(re.match(r"\d", version) for version in found.values())


def test_what_is_not_installed_is_lacking() -> None:
    told = in_container.lacks(["numpy", "surely-not-installed"])
    assert told["missing"] == ["surely-not-installed"]
    assert told["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_wheels_of_lacking_packages_are_fetched_once(
    docker: FakeDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.lacking = ("hpack",)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    asked: list[list[str]] = []

    def download(wanted: list[str], python: str, target: Path) -> None:
        asked.append([python, *wanted])
        (target / "hpack.whl").touch()

    monkeypatch.setattr(container_wheels, "_pip", download)
    client = container_engines.Client("docker", docker.directory / "docker")
    image = docker.images[IMAGE]
    with pytest.raises(EnvironmentError_, match="lacks hpack"):
        wheels_for(client, image, offline=True, progress=Silent())
    shelf = wheels_for(client, image, offline=False, progress=Silent())
    assert (shelf / "hpack.whl").exists()
    assert wheels_for(client, image, offline=True, progress=Silent()) == shelf
    assert asked == [[f"3.{sys.version_info.minor}", f"hpack=={closure()['hpack']}"]]


def test_interrupted_download_leaves_nothing(
    docker: FakeDocker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.lacking = ("hpack",)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(container_wheels, "_pip", interrupted)
    client = container_engines.Client("docker", docker.directory / "docker")
    with pytest.raises(KeyboardInterrupt):
        wheels_for(client, docker.images[IMAGE], offline=False, progress=Silent())
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_wheels_are_installed_without_a_network(tmp_path: Path) -> None:
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny_thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_thing.py", "x = 1\n")
        about = "tiny_thing-1.0.dist-info"
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    assert in_container.install(str(wheels), str(site)) == 0
    assert (site / "tiny_thing.py").exists()


def test_script_needs_nothing_but_the_standard_library() -> None:
    script = Path(in_container.__file__)
    done = subprocess.run(
        [sys.executable, "-IS", str(script), "lacks", "numpy"], capture_output=True, text=True
    )
    assert json.loads(done.stdout)["missing"] == ["numpy"]
