"""Two rungs on the real server: what they switch is really switched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toolkit.bench.lengths import Fixed
from toolkit.bench.load import ClosedLoop, Stop
from toolkit.bench.workload import Conversation
from toolkit.pipeline.ablation.method import Method
from toolkit.pipeline.ablation.running import Where, ablate
from toolkit.progress import Silent
from toolkit.serving.state import RunDirectory

if TYPE_CHECKING:
    from toolkit.pipeline import BuildResult
    from toolkit.spec.models import Deployment
    from toolkit.workspace import Workspace

METHOD = Method(
    title="two rungs",
    workload=Conversation(
        type="conversation",
        turns=Fixed(tokens=2),
        system_tokens=96,
        user_tokens=Fixed(tokens=8),
        output_tokens=Fixed(tokens=4),
    ),
    loads=(ClosedLoop(concurrency=2),),
    stop=Stop(requests=4, warmup_requests=1),
    rounds=1,
    objectives={},
    seed=3,
    timeout=300,
)


@pytest.mark.e2e
def test_naive_and_full_are_served_as_they_say(
    store: Workspace, plain_deployment: Deployment, plain_build: BuildResult, tmp_path: Path
) -> None:
    report, folder = ablate(
        plain_deployment,
        store,
        METHOD,
        rungs=["naive", "full"],
        where=Where(tmp_path / "out"),
        progress=Silent(),
    )
    naive, full = report.loads[0].results
    assert (naive.rung, full.rung) == ("naive", "scheduling")
    assert naive.completed == full.completed == 4
    assert naive.figures["kv_reuse"].value == 0
    assert full.figures["kv_reuse"].value > 0.3
    assert report.facts("scheduling").protocol.startswith("gateway")
    found = report.find("2 users", "scheduling", "first", "output_throughput")
    assert found is not None
    assert found.rounds == 1
    state = RunDirectory(store.root, "plain-ablation").read()
    assert state is None or not state.runs
    assert len(list((folder / "slots").iterdir())) == 2
