"""A build does what is missing and nothing else, and survives being killed at any moment."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit.cli.app import run
from toolkit.errors import EnvironmentError_, UnsupportedError, ValidationFailed
from toolkit.pipeline import BuildResult, build
from toolkit.progress import Silent
from toolkit.repository.findings import Finding
from toolkit.spec.loading import load
from toolkit.spec.models import Deployment
from toolkit.workspace import Artifact, Workspace, users_by_key

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
EXAMPLE = ROOT / "examples" / "smollm2.yaml"
pytestmark = pytest.mark.slow


def variant(*overrides: str) -> Deployment:
    common = ("name=plain", "quantization.weights=none")
    return load(EXAMPLE, overrides=(*common, *overrides), environ={}).resolved()


def look(store: Workspace, *overrides: str) -> dict[str, bool]:
    """Which stages a build would find done."""
    result = build(variant(*overrides), store, progress=Silent(), dry_run=True)
    assert result.complete
    return {stage.name: stage.artifact.reused for stage in result.stages}


def test_second_build_only_finds(store: Workspace, plain_build: BuildResult) -> None:
    again = build(plain_build.deployment, store, progress=Silent())
    assert all(stage.artifact.reused for stage in again.stages)
    assert [s.artifact.key for s in again.stages] == [s.artifact.key for s in plain_build.stages]


def test_every_artifact_of_a_build_verifies(store: Workspace, plain_build: BuildResult) -> None:
    for stage in plain_build.stages:
        assert store.verify(stage.artifact) == [], stage.name


def test_what_a_deployment_uses_is_remembered(store: Workspace, plain_build: BuildResult) -> None:
    build(plain_build.deployment, store, progress=Silent())
    users = users_by_key(store.root)
    for stage in plain_build.stages:
        assert "plain" in users[stage.artifact.key]


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("engine.kv_cache.reuse=false", {"repository"}),
        ("engine.limits.max_batch_size=8", {"repository"}),
        ("engine.batching.max_queue_size=7", {"repository"}),
        ("name=other", {"repository"}),
        ("quantization.weights=fp8", {"quantized", "engine", "references", "repository"}),
        ("quantization.kv_cache=fp8", {"quantized", "engine", "references", "repository"}),
    ],
)
def test_a_change_builds_only_what_depends_on_it(
    store: Workspace, sample_checkpoint: Artifact, override: str, again: set[str]
) -> None:
    empty = Workspace(store.root.parent / f"looking-{os.getpid()}")
    try:
        _seed(store, empty)
        stages = look(empty, override)
    finally:
        shutil.rmtree(empty.root)
    assert {name for name, reused in stages.items() if not reused} == again


def _seed(store: Workspace, empty: Workspace) -> None:
    """A workspace that holds the plain build and nothing else, by hard links."""
    plain = build(variant(), store, progress=Silent())
    for stage in plain.stages:
        target = empty.root / stage.artifact.path.relative_to(store.root)
        shutil.copytree(stage.artifact.path, target, copy_function=os.link)


def test_dry_run_without_the_checkpoint_says_so(tmp_path: Path) -> None:
    result = build(variant(), Workspace(tmp_path), progress=Silent(), dry_run=True)
    assert not result.complete
    assert [stage.name for stage in result.stages] == ["checkpoint"]
    assert not list(tmp_path.glob("*/*"))


def test_what_cannot_work_is_refused_before_anything_is_built(
    store: Workspace, sample_checkpoint: Artifact
) -> None:
    before = {artifact.key for artifact in store.list()}
    for override, word in (
        ("engine.limits.max_seq_len=900000", "max_seq_len"),
        ("engine.parallelism.tensor=2", "gpus|parallelism"),
        ("quantization={weights: int4_awq, block_size: 100}", "block"),
    ):
        with pytest.raises(Exception, match=word):
            build(variant(override), store, progress=Silent())
    assert {artifact.key for artifact in store.list()} == before


def test_an_engine_s_builder_is_looked_for_before_anything_is_exported(
    store: Workspace, sample_checkpoint: Artifact
) -> None:
    with pytest.raises(EnvironmentError_, match="trtllm-build"):
        build(variant("engine.runtime=tensorrt"), store, progress=Silent())
    assert not store.list("exported")


def test_a_repository_with_errors_is_not_published(
    store: Workspace, plain_build: BuildResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [
        Finding("plain/config.pbtxt:3:1", "no such backend", hint="choose python"),
        Finding("plain/config.pbtxt:9:1", "odd, but it works", severity="warning"),
    ]
    monkeypatch.setattr("toolkit.repository.check.check_static", lambda _: findings)
    deployment = variant("engine.batching.max_queue_size=11")
    with pytest.raises(ValidationFailed) as caught:
        build(deployment, store, progress=Silent())
    assert caught.value.details == ("plain/config.pbtxt:3:1: no such backend",)
    assert not look(store, "engine.batching.max_queue_size=11")["repository"]
    findings.pop(0)
    artifact = build(deployment, store, progress=Silent()).artifact("repository")
    assert artifact is not None
    assert artifact.manifest.notes == {"warnings": ["plain/config.pbtxt:9:1: odd, but it works"]}
    store.remove(artifact)


def test_command_links_the_repository_and_reports_json(
    store: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "out" / "models"
    arguments = ["build", str(EXAMPLE), "--set", "quantization.weights=none", "--json", "-q"]
    arguments += ["--set", "name=plain", "--workspace", str(store.root), "--output", str(link)]
    assert run(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert link.resolve() == Path(report["repository"]).resolve()
    assert (link / "plain" / "config.pbtxt").is_file()
    names = [stage["name"] for stage in report["stages"]]
    assert names == ["checkpoint", "engine", "references", "repository"]
    (tmp_path / "file").write_text("")
    assert run([*arguments[:-1], str(tmp_path / "file")]) == 2


def test_the_link_leads_there_from_wherever_it_lies(
    store: Workspace, plain_build: BuildResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.root.parent)
    arguments = ["build", str(EXAMPLE), "--set", "quantization.weights=none", "-q"]
    arguments += ["--set", "name=plain", "--workspace", store.root.name]
    assert run([*arguments, "--output", str(tmp_path / "models")]) == 0
    assert (tmp_path / "models" / "plain" / "config.pbtxt").is_file()


def test_a_build_killed_at_ten_random_moments_completes(
    tmp_path: Path, sample_checkpoint: Artifact
) -> None:
    """The whole build, quantization included, with little calibration so that it stays short."""
    store = Workspace(tmp_path / "ws")
    command = [sys.executable, "-m", "toolkit", "build", str(EXAMPLE), "-q"]
    for override in (
        f"model.source={sample_checkpoint.path}",
        "quantization={weights: fp8, calibration: {samples: 4, max_length: 64}, "
        "accept: {perplexity_increase: 0.5, kl_divergence: 1.0, top1_agreement: 0.5}}",
    ):
        command += ["--set", override]
    command += ["--workspace", str(store.root)]
    dice = random.Random(20261124)
    for _ in range(5):
        _kill_after(command, dice.uniform(0.3, 12))
    _complete(command)
    # Quantizing takes so long that the kills above hardly reach what follows it.
    for _ in range(5):
        for artifact in store.list():
            if artifact.kind in ("engine", "references", "repository"):
                store.remove(artifact)
        _kill_after(command, dice.uniform(0.3, 4))
    _complete(command)
    artifacts = store.list()
    kinds = {artifact.kind for artifact in artifacts}
    assert kinds == {"checkpoint", "quantized", "engine", "references", "repository"}
    for artifact in artifacts:
        assert store.verify(artifact) == []
    store.prune({artifact.key for artifact in artifacts})
    assert not list(store.root.glob("*/.*.partial"))


def _kill_after(command: list[str], seconds: float) -> None:
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    time.sleep(seconds)
    process.kill()
    process.wait()


def _complete(command: list[str]) -> None:
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_cache_below_one_request_is_refused_like_in_a_plan(
    store: Workspace, plain_build: BuildResult
) -> None:
    small = variant("engine.kv_cache.size=1MiB")
    with pytest.raises(UnsupportedError, match="one request of max_seq_len"):
        build(small, store, progress=Silent())


def test_cache_above_this_machines_memory_is_told(
    store: Workspace, plain_build: BuildResult
) -> None:
    told: list[str] = []

    class Noting(Silent):
        def note(self, message: str) -> None:
            told.append(message)

    build(variant("engine.kv_cache.size=4096GiB"), store, progress=Noting(), dry_run=True)
    assert any("KV cache is cut from 4096.0" in line for line in told)
