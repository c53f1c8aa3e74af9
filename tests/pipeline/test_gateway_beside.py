"""The gateway that a launch gets beside its server."""

from __future__ import annotations

import json
from pathlib import Path

from toolkit.pipeline.beside import with_gateway
from toolkit.serving.launch import LaunchPlan
from toolkit.spec.loading import load
from toolkit.spec.models import Ports


def planned(tmp_path: Path, *settings: str) -> LaunchPlan:
    repository = tmp_path / "repository"
    repository.mkdir(exist_ok=True)
    (repository / "tokenizer.json").write_text("{}")
    file = tmp_path / "deploy.yaml"
    file.write_text("name: chat\nmodel: {source: ./m}\n")
    deployment = load(file, overrides=settings).resolved()
    alone = LaunchPlan(
        name="chat",
        repository=repository,
        repository_digest="d",
        executable=Path("/bin/false"),
        backends=tmp_path,
        host="127.0.0.1",
        ports=Ports(http=0, grpc=0, metrics=0),
        ready_timeout=30,
        drain_timeout=1,
        max_batch_size=1,
    )
    return with_gateway(alone, deployment, tmp_path)


def test_planning_writes_nothing_where_another_launch_may_run(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert not (tmp_path / "run").exists()
    beside = plan.companion
    assert beside is not None
    assert beside.file is not None
    assert str(beside.file) in beside.command
    assert json.loads(beside.content)["models"][0]["name"] == "chat"


def test_another_gateway_section_is_another_launch(tmp_path: Path) -> None:
    first, again = planned(tmp_path), planned(tmp_path)
    other = planned(tmp_path, "scheduling.policy=fcfs")
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint


def test_without_a_gateway_the_plan_is_as_it_was(tmp_path: Path) -> None:
    assert planned(tmp_path, "gateway.enabled=false").companion is None
