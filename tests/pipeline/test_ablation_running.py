"""An ablation's course: in turn, resumable, and honest about what failed. Servers are doubled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from ablation_slots import USERS, simple

from toolkit.bench.load import Stop
from toolkit.bench.report import BenchReport
from toolkit.bench.workload import Conversation
from toolkit.errors import ServerError, SpecError
from toolkit.pipeline.ablation import running
from toolkit.pipeline.ablation.features import changed
from toolkit.pipeline.ablation.ladder import Ladder, ladder
from toolkit.pipeline.ablation.measured import as_measured
from toolkit.pipeline.ablation.method import Method
from toolkit.pipeline.ablation.running import Where, ablate
from toolkit.pipeline.ablation.serving import Built
from toolkit.pipeline.ablation.slots import SlotStore
from toolkit.progress import Silent
from toolkit.serving.state import RunDirectory
from toolkit.spec.models import Deployment
from toolkit.workspace import Workspace

DEPLOYMENT = Deployment.model_validate(
    {
        "name": "m",
        "model": {"source": "sample:smollm2-135m"},
        "engine": {
            "runtime": "openvino",
            "limits": {"max_input_len": 64, "max_seq_len": 96, "max_num_tokens": 64},
        },
    }
)
METHOD = Method(
    title="m: ablation",
    workload=Conversation(type="conversation"),
    loads=(USERS,),
    stop=Stop(requests=12),
    rounds=2,
    objectives={},
)
RUNGS = ("naive", "in-flight", "full")


@dataclass
class Bench:
    """Stands in for servers: remembers what was measured, does what ``act`` says."""

    measured: list[tuple[int, str, int | None]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    act: Callable[[int, str], BenchReport] = lambda number, key: simple(1.0)

    def measure(
        self, built: Built, number: int, root: Path, method: Method, *, progress: object
    ) -> BenchReport:
        report = self.act(number, built.rung.key)
        self.measured.append((number, built.rung.key, method.seed))
        return report

    def build(self, chosen: Any, *_: object) -> dict[str, Built]:
        return {
            rung.key: Built(rung, Path("r"), "openvino", self.digests.get(rung.key, "d"))
            for rung in chosen
        }


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()

    def derive(measured: Deployment, *_: object) -> Ladder:
        return ladder(measured)

    monkeypatch.setattr(running, "_derive", derive)
    monkeypatch.setattr(running, "_build", made.build)
    monkeypatch.setattr(running, "measure_rung", made.measure)
    return made


def go(
    tmp_path: Path, method: Method = METHOD, rungs: tuple[str, ...] = RUNGS, **where: Any
) -> tuple[Any, Path]:
    return ablate(
        DEPLOYMENT,
        Workspace(tmp_path),
        method,
        rungs=rungs,
        where=Where(**where),
        progress=Silent(),
    )


def test_rungs_take_turns_and_a_round_has_one_seed(bench: Bench, tmp_path: Path) -> None:
    report, folder = go(tmp_path, replace(METHOD, seed=7))
    assert [(number, key) for number, key, _ in bench.measured] == [
        (0, "naive"),
        (0, "in-flight"),
        (0, "scheduling"),
        (1, "naive"),
        (1, "in-flight"),
        (1, "scheduling"),
    ]
    assert {seed for _, _, seed in bench.measured} == {7}
    assert folder.parent == tmp_path / "bench"
    assert folder.name.startswith("m-ablation-")
    assert [one.key for one in report.rungs] == ["naive", "in-flight", "scheduling"]
    assert report.rounds == 2
    assert not report.partial


def test_what_is_finished_is_not_measured_again(bench: Bench, tmp_path: Path) -> None:
    def act(number: int, key: str) -> BenchReport:
        if (number, key) == (1, "in-flight"):
            raise KeyboardInterrupt
        return simple(1.0 + number)

    bench.act = act
    partial, folder = go(tmp_path)
    assert partial.partial
    assert [(n, key) for n, key, _ in bench.measured] == [
        (0, "naive"),
        (0, "in-flight"),
        (0, "scheduling"),
        (1, "naive"),
    ]
    seeds = {seed for _, _, seed in bench.measured}
    bench.measured.clear()
    bench.act = lambda number, key: simple(1.0 + number)
    whole, again = go(tmp_path, resume=True)
    assert again == folder
    assert [(n, key) for n, key, _ in bench.measured] == [(1, "in-flight"), (1, "scheduling")]
    assert {seed for _, _, seed in bench.measured} == seeds
    assert not whole.partial
    bench.measured.clear()
    once_more, _ = go(tmp_path, resume=True)
    assert bench.measured == []
    assert once_more.loads == whole.loads


def test_a_slot_that_was_cut_short_is_measured_again(bench: Bench, tmp_path: Path) -> None:
    bench.act = lambda number, key: (
        simple(1.0).model_copy(update={"partial": True}) if key == "in-flight" else simple(1.0)
    )
    report, folder = go(tmp_path)
    assert report.partial
    assert [slot.rung for slot in SlotStore(folder).load()] == ["naive"]


def test_an_interruption_before_the_first_slot_leaves_no_report(
    bench: Bench, tmp_path: Path
) -> None:
    def act(number: int, key: str) -> BenchReport:
        raise KeyboardInterrupt

    bench.act = act
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path)


def test_a_rung_that_changed_is_measured_again(bench: Bench, tmp_path: Path) -> None:
    go(tmp_path)
    bench.measured.clear()
    bench.digests["in-flight"] = "another"
    go(tmp_path, resume=True)
    assert {key for _, key, _ in bench.measured} == {"in-flight"}


def test_a_file_that_was_not_written_whole_is_measured_again(bench: Bench, tmp_path: Path) -> None:
    _, folder = go(tmp_path)
    bench.measured.clear()
    victim = folder / "slots" / "002-naive.json"
    victim.write_text(victim.read_text()[:100])
    go(tmp_path, resume=True)
    assert [(number, key) for number, key, _ in bench.measured] == [(1, "naive")]


def test_more_rounds_and_rungs_can_be_added(bench: Bench, tmp_path: Path) -> None:
    go(tmp_path, rungs=("naive",))
    bench.measured.clear()
    go(tmp_path, replace(METHOD, rounds=3), rungs=("naive", "full"), resume=True)
    assert [(number, key) for number, key, _ in bench.measured] == [
        (0, "scheduling"),
        (1, "scheduling"),
        (2, "naive"),
        (2, "scheduling"),
    ]


def test_a_rung_that_fails_is_left_out_and_named(bench: Bench, tmp_path: Path) -> None:
    def act(number: int, key: str) -> BenchReport:
        if key == "in-flight":
            raise ServerError("out of memory")
        return simple(1.0)

    bench.act = act
    report, _ = go(tmp_path)
    assert [key for _, key, _ in bench.measured] == ["naive", "scheduling"] * 2
    assert "in-flight batching: failed in round 1: out of memory" in report.notes
    assert [one.key for one in report.rungs] == ["naive", "scheduling"]


def test_a_step_after_one_that_failed_adds_what_that_would_have_added(
    bench: Bench, tmp_path: Path
) -> None:
    def act(number: int, key: str) -> BenchReport:
        if key == "chunked-prefill":
            raise ServerError("out of memory")
        return simple(1.0)

    bench.act = act
    report, _ = go(tmp_path, rungs=("in-flight", "chunked-prefill", "kv-reuse"))
    assert report.facts("kv-reuse").adds == ("chunked-prefill", "kv-reuse")
    assert report.facts("kv-reuse").pays == ""


def test_a_load_process_that_died_is_a_failure_and_no_interruption(
    bench: Bench, tmp_path: Path
) -> None:
    died = simple(1.0).model_copy(update={"partial": True, "failure": "a load process died"})
    bench.act = lambda number, key: died if key == "in-flight" else simple(1.0)
    report, folder = go(tmp_path)
    assert not report.partial
    assert [one.key for one in report.rungs] == ["naive", "scheduling"]
    assert "in-flight batching: failed in round 1: a load process died" in report.notes
    assert {slot.rung for slot in SlotStore(folder).load()} == {"naive", "scheduling"}


def test_another_gateway_is_measured_again_where_it_was_asked(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(tmp_path)
    bench.measured.clear()
    other = changed(DEPLOYMENT, {"gateway": {"max_body": "1MiB"}})
    assert other.gateway != DEPLOYMENT.gateway
    monkeypatch.setattr(sys.modules[__name__], "DEPLOYMENT", other)
    go(tmp_path, resume=True)
    assert [key for _, key, _ in bench.measured] == ["scheduling", "scheduling"]


def test_if_every_rung_fails_that_is_an_error(bench: Bench, tmp_path: Path) -> None:
    def act(number: int, key: str) -> BenchReport:
        raise ServerError(f"no {key}")

    bench.act = act
    with pytest.raises(ServerError, match="no rung") as caught:
        go(tmp_path)
    assert any("no naive" in line for line in caught.value.details)


def test_nothing_is_written_over_and_nothing_else_is_resumed(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    go(tmp_path, folder=folder)
    with pytest.raises(SpecError, match="already") as caught:
        go(tmp_path, folder=folder)
    assert "--resume" in str(caught.value.hint)
    with pytest.raises(SpecError, match="another workload"):
        go(tmp_path, replace(METHOD, stop=Stop(requests=13)), folder=folder, resume=True)
    with pytest.raises(SpecError, match="seed"):
        go(tmp_path, replace(METHOD, seed=1), folder=folder, resume=True)
    with pytest.raises(SpecError, match="no ablation to resume"):
        go(tmp_path, folder=tmp_path / "none", resume=True)


def test_nothing_to_resume_is_told_with_where_it_was_looked_for(
    bench: Bench, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match="no ablation of m to resume") as caught:
        go(tmp_path, resume=True)
    assert caught.value.where == str(tmp_path / "bench")
    assert not (tmp_path / "bench").exists()


def test_without_a_folder_the_newest_that_fits_is_resumed(bench: Bench, tmp_path: Path) -> None:
    parent = tmp_path / "bench"
    for day, requests in (("20260101", 12), ("20260102", 12), ("20260103", 13)):
        method = replace(METHOD, stop=Stop(requests=requests))
        go(tmp_path, method, folder=parent / f"m-ablation-{day}-000000")
    SlotStore(parent / "m-ablation-20260104-000000").begin(METHOD.identity(1))  # nothing finished
    _, folder = go(tmp_path, resume=True)
    assert folder.name == "m-ablation-20260102-000000"


def test_two_at_once_would_stop_each_others_servers(bench: Bench, tmp_path: Path) -> None:
    other = RunDirectory(tmp_path, "m-ablation").lock("ablation", wait=False)
    with other, pytest.raises(ServerError, match="running already"):
        go(tmp_path)
    assert bench.measured == []
    go(tmp_path)


def test_a_server_beside_it_is_told(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Running:
        runs = True

    monkeypatch.setattr(running.RunDirectory, "read", lambda self: Running())
    report, _ = go(tmp_path)
    assert report.notes[0].startswith("m runs on this machine, too")


def test_queues_hold_every_user() -> None:
    assert METHOD.users == 2
    assert as_measured(DEPLOYMENT, 2000).engine.batching.max_queue_size == 2000
