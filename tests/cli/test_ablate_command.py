"""``toolkit bench FILE --ablate``: what its flags mean, what it prints, how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from ablation_slots import USERS, simple

from toolkit.bench.ablation.assemble import Frame, assemble
from toolkit.bench.ablation.files import read_ablation
from toolkit.bench.ablation.report import AblationReport, LeftOutStep, RungFacts
from toolkit.cli.app import run
from toolkit.errors import UnsupportedError
from toolkit.pipeline.ablation import running

FILE = """
name: m
model: {source: "sample:smollm2-135m"}
engine: {runtime: openvino, limits: {max_input_len: 2048, max_seq_len: 2200}}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "deploy.yaml"
    path.write_text(FILE)
    return str(path)


def report(partial: bool = False) -> AblationReport:
    rungs = (
        RungFacts(key="naive", title="naive"),
        RungFacts(key="full", title="+ all (full)", adds=("kv-reuse",), is_full=True),
    )
    frame = Frame(
        "m: ablation",
        "2026-01-01",
        rungs,
        2,
        left_out=(LeftOutStep(key="speculation", title="speculation", reason="not set"),),
        partial=partial,
        notes=("mind this",),
    )
    fast, slow = simple(0.2), simple(1.0)
    return assemble(
        frame, {(n, key): one for n in range(2) for key, one in (("naive", slow), ("full", fast))}
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the command with the measurement doubled; what it was asked for."""

    def go(*words: str, partial: bool = False, code: int = 0) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def ablate(deployment: Any, workspace: Any, method: Any, **more: Any) -> Any:
            seen.update(deployment=deployment, workspace=workspace, method=method, **more)
            return report(partial), tmp_path / "out"

        monkeypatch.setattr(running, "ablate", ablate)
        assert run(["bench", *words]) == code
        return seen

    return go


def test_by_default_it_measures_the_whole_ladder_with_its_own_scenario(
    asked: Callable[..., dict[str, Any]], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = asked(file, "--ablate")
    assert seen["rungs"] == ["all"]
    method = seen["method"]
    assert (method.rounds, method.users, method.stop.requests) == (3, 32, 64)
    assert method.timeout >= 3600
    assert seen["workspace"].root == Path(file).parent / ".toolkit"
    shown = capsys.readouterr()
    assert "times better than naive" in shown.out
    assert "5.00x" in shown.out
    assert "left out: speculation: not set" in shown.out
    assert "note: mind this" in shown.err
    assert "ablation.html" in shown.out


def test_the_usual_flags_change_it(asked: Callable[..., dict[str, Any]], file: str) -> None:
    seen = asked(
        *(file, "--ablate", "--rungs", "naive, full", "--resume", "--concurrency", "4"),
        *("--repeats", "5", "--seed", "9", "--set", "engine.limits.max_batch_size=4"),
        *("--workspace", "w", "--output", "o"),
    )
    assert seen["rungs"] == ["naive", "full"]
    assert seen["where"].resume
    assert seen["where"].folder == Path("o")
    method = seen["method"]
    assert (method.users, method.rounds, method.seed) == (4, 5, 9)
    assert seen["deployment"].engine.limits.max_batch_size == 4


def test_a_duration_takes_the_place_of_the_scenarios_number_of_requests(
    asked: Callable[..., dict[str, Any]], file: str
) -> None:
    timed = asked(file, "--ablate", "--duration", "7s")["method"].stop
    assert (timed.requests, timed.duration) == (None, 7.0)
    both = asked(file, "--ablate", "--duration", "7s", "--requests", "5")["method"].stop
    assert both.requests == 5


def test_json_is_the_report(
    asked: Callable[..., dict[str, Any]],
    file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked(file, "--ablate", "--json")
    shown = AblationReport.model_validate(json.loads(capsys.readouterr().out))
    assert shown == read_ablation(tmp_path / "out") == report()
    assert shown.loads[0].label == USERS.label


def test_an_interrupted_one_is_written_and_ends_with_130(
    asked: Callable[..., dict[str, Any]], file: str, tmp_path: Path
) -> None:
    asked(file, "--ablate", partial=True, code=130)
    assert read_ablation(tmp_path / "out").partial


def test_the_client_may_have_several_processes(
    asked: Callable[..., dict[str, Any]], file: str
) -> None:
    assert asked(file, "--ablate", "--processes", "3")["method"].processes == 3
    assert asked(file, "--ablate")["method"].processes >= 1


def test_its_schema_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "--kind", "bench-ablation"]) == 0
    schema = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(schema)
    written = json.loads(report().model_dump_json())
    assert list(Draft202012Validator(schema).iter_errors(written)) == []
    assert not Draft202012Validator(schema).is_valid({**written, "rungs": 3})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rungs", "naive"), "--rungs"),
        (("--resume",), "--resume"),
        (("--ablate", "--fail-on-errors"), "--fail-on-errors"),
        (("--ablate", "--fail-below-slo", "0.9"), "--fail-below-slo"),
        (("--ablate", "--url", "grpc://h:1"), "--ablate"),
        (("--ablate", "--protocol", "http"), "--ablate"),
        (("--ablate", "--model", "x"), "--ablate"),
        (("--ablate", "--with", "workload.turns=90"), "max_input_len"),
        (("--ablate", "--find-rate", "--slo-ttft-ms", "500"), "a search has none"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: tuple[str, ...],
    said: str,
    asked: Callable[..., dict[str, Any]],
    file: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert asked(file, *words, code=2) == {}
    assert said in capsys.readouterr().err


def test_a_file_is_needed(asked: Callable[..., dict[str, Any]]) -> None:
    assert asked("--ablate", code=2) == {}


def test_what_the_ladder_refuses_is_the_commands_error(
    monkeypatch: pytest.MonkeyPatch, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def ablate(*_: Any, **__: Any) -> None:
        raise UnsupportedError("no such GPU", where="serving.gpu")

    monkeypatch.setattr(running, "ablate", ablate)
    assert run(["bench", file, "--ablate"]) == 2
    assert "no such GPU" in capsys.readouterr().err
