"""``toolkit plan`` on a fleet file, and ``toolkit gateway`` before it, as a user meets them."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from fleet_files import write_fleet

from toolkit.cli.app import run
from toolkit.gateway import server
from toolkit.gateway.plan import GatewayPlan
from toolkit.serving import procfs
from toolkit.serving.state import RunDirectory, RunState, now

FLEET = "models: [chat.yaml, {file: small.yaml, replicas: 2}]\ngpus: {type: H100, count: 2}\n"


def test_a_fleet_is_printed_as_a_table_and_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_fleet(tmp_path, FLEET)
    assert run(["plan", str(file), "--offline"]) == 0
    told = capsys.readouterr().out
    assert "2 models on 2 x H100" in told
    rows = [line.split("│")[1:-1] for line in told.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert [row[:2] for row in cells] == [["0", "chat"], ["", "small 1/2"], ["1", "small 2/2"]]
    assert all(int(row[4]) > 4096 for row in cells)
    assert f"toolkit deploy {tmp_path / 'chat.yaml'} --set 'serving.gpus=[0]'" in told
    assert f"toolkit gateway {file}" in told


def test_a_fleet_is_json_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_fleet(tmp_path, FLEET)
    assert run(["plan", str(file), "--json", "--workspace", str(tmp_path / "w")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["gpu"], told["host"]) == ("H100", None)
    assert [[each["name"] for each in gpu["models"]] for gpu in told["gpus"]] == [
        ["chat", "small"],
        ["small"],
    ]
    for gpu in told["gpus"]:
        used = sum(each["fixed_bytes"] + each["kv_cache_bytes"] for each in gpu["models"])
        assert gpu["used_bytes"] == used
        assert gpu["left_bytes"] == gpu["memory_bytes"] - used >= 0
    assert [each["gpus"] for each in told["models"]] == [[0], [0, 1]]
    assert all(line.endswith(f"--workspace {tmp_path / 'w'}") for line in told["commands"])


def test_no_room_is_exit_code_2_with_what_would_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_fleet(tmp_path, FLEET.replace("count: 2", "count: 1"))
    assert run(["plan", str(file)]) == 2
    told = capsys.readouterr().err
    assert "small, replica 2 of 2, has no place" in told
    assert "what would fit: replicas: 1 of small; or 2 GPUs" in told


@pytest.mark.parametrize(
    ("option", "value", "way_out"),
    [
        ("--gpu", "L4", "gpus: {type"),
        ("--model-config", "L4", "a folder with its config.json"),
        ("--draft-config", "L4", "a folder with its config.json"),
        ("--rate", "2", "plan the file of each model"),
        ("--reuse", "0.5", "plan the file of each model"),
        ("--acceptance", "0.5", "plan the file of each model"),
    ],
)
def test_options_of_one_deployment_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, way_out: str
) -> None:
    assert run(["plan", str(write_fleet(tmp_path, FLEET)), option, value]) == 2
    said = capsys.readouterr().err
    assert f"{option} is for one deployment" in said
    assert way_out in said


def deployed(root: Path, name: str, grpc: int) -> None:
    """The state of a server that runs, as far as the gateway looks."""
    repository = root / "repository" / name
    repository.mkdir(parents=True)
    (repository / "tokenizer.json").write_text("{}")
    directory = RunDirectory(root, name)
    directory.create()
    directory.write(
        RunState(
            name=name,
            status="ready",
            machine=socket.gethostname(),
            supervisor_pid=os.getpid(),
            supervisor_start=procfs.start_time(os.getpid()) or 0,
            host="127.0.0.1",
            http_port=grpc - 1,
            grpc_port=grpc,
            metrics_port=grpc + 1,
            repository=str(repository),
            repository_digest="d",
            plan_fingerprint="f",
            launched_at=now(),
        )
    )


def test_one_gateway_serves_all_models_of_a_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[GatewayPlan] = []
    monkeypatch.setattr(server, "run", plans.append)
    file = write_fleet(tmp_path, FLEET + "gateway: {port: 9333}\n")
    (tmp_path / "own.yaml").write_text(
        "name: own\nmodel: {source: ./model-1b}\ngateway: {port: 9444}\n"
    )
    for number, name in enumerate(("chat", "small", "own")):
        deployed(tmp_path / ".toolkit", name, 8001 + 10 * number)
    assert run(["gateway", str(file), str(tmp_path / "own.yaml")]) == 0
    (plan,) = plans
    assert [each.name for each in plan.models] == ["chat", "small", "own"]
    assert [each.addresses for each in plan.models] == [
        ("127.0.0.1:8001/8002",),
        ("127.0.0.1:8011/8012",),
        ("127.0.0.1:8021/8022",),
    ]
    # Two replicas of 32 requests each.
    assert plan.models[1].slots == 64
    assert plan.gateway.port == 9333
    assert run(["gateway", str(tmp_path / "own.yaml"), str(file)]) == 0
    assert plans[1].gateway.port == 9444


def test_a_fleet_is_several_models_for_options_about_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_fleet(tmp_path, FLEET)
    assert run(["gateway", str(file), "--replica", "127.0.0.1:8001"]) == 2
    assert "for one model" in capsys.readouterr().err
