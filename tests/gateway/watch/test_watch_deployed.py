"""Which places the deployments of a workspace are."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_states import state, write

from toolkit.gateway.plan import PLAN, GatewayPlan, ModelPlan
from toolkit.gateway.watch.deployed import deployed
from toolkit.spec.gateway import Gateway, Scheduling


def test_gateway_and_triton_of_a_deployment(tmp_path: Path) -> None:
    write(tmp_path, state("chat"))
    gateway, triton = deployed(tmp_path)
    assert (gateway.url, gateway.replica) == ("https://127.0.0.1:9000/metrics", "")
    assert not gateway.verify
    assert (triton.url, triton.replica) == ("http://127.0.0.1:8002/metrics", "127.0.0.1:8001")
    assert (triton.name, triton.model, triton.status, triton.restarts) == (
        *("chat", "chat", "ready"),
        1,
    )


def test_replicas_elsewhere_as_the_gateways_plan_names_them(tmp_path: Path) -> None:
    directory = write(tmp_path, state("chat"))
    model = ModelPlan(
        name="chat",
        tokenizer=tmp_path,
        max_input_len=1,
        max_seq_len=2,
        slots=1,
        guided=False,
        scheduling=Scheduling(),
        addresses=("gpu-2:8001/8012", "unmeasured:8001"),
    )
    plan = GatewayPlan(models=(model,), gateway=Gateway())
    (directory.path / PLAN).write_text(plan.model_dump_json())
    further = deployed(tmp_path)[2:]
    assert [(each.url, each.replica, each.model) for each in further] == [
        ("http://gpu-2:8012/metrics", "gpu-2:8001", "chat")
    ]


def test_all_that_run_or_those_that_are_named(tmp_path: Path) -> None:
    write(tmp_path, state("chat"))
    write(tmp_path, state("ended", status="stopped", metrics_port=9002, companion_url=""))
    write(tmp_path, state("dead", supervisor_start=1, metrics_port=9102, companion_url=""))
    assert {each.name for each in deployed(tmp_path)} == {"chat"}
    named = deployed(tmp_path, ["ended", "dead"])
    assert [(each.name, each.status) for each in named] == [("dead", "dead"), ("ended", "stopped")]


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:9000"])
def test_a_server_that_has_no_ports_yet(url: str, tmp_path: Path) -> None:
    write(tmp_path, state("chat", status="starting", metrics_port=0, companion_url=url))
    assert [each.url for each in deployed(tmp_path)] == ([f"{url}/metrics"] if url else [])
