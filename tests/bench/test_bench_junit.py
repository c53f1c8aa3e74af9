"""``toolkit bench --junit``: what CI sees is what the exit code says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from grpc_double import error, response, serving
from simulated import CALM, Server, report

from toolkit.bench.report import Estimate
from toolkit.bench.verdict import cases
from toolkit.cli.app import run
from toolkit.junit import Case, junit_xml

SHORT = ("--requests", "8", "--with", "stop.warmup_requests=0", "--quiet", "--concurrency", "1")


def answering(fails: Callable[[int], bool]) -> Callable[[Any, Any], Iterator[Any]]:
    def script(request: Any, context: Any) -> Iterator[Any]:
        if fails(int(request.id)):
            yield error("broke on <purpose>")
        else:
            yield response("x", final=True, num_output_tokens=1)

    return script


def bench(file: Path, fails: Callable[[int], bool], *arguments: str) -> tuple[int, Any]:
    """The exit code, and the outcome of each test case."""
    with serving(answering(fails)) as (port, _):
        server = ("--url", f"localhost:{port}", "--model", "m")
        code = run(["bench", *server, *SHORT, "--junit", str(file), *arguments])
    if not file.exists():
        return code, None
    suite = ElementTree.parse(file).getroot()[0]
    known = {"failure", "error", "skipped"}
    found = {one.get("name"): [part.tag for part in one if part.tag in known] for one in suite}
    assert suite.get("failures") == str(sum("failure" in tags for tags in found.values()))
    return code, {name: tags for name, tags in found.items() if "client" not in str(name)}


def test_a_good_run_passes_every_case(tmp_path: Path) -> None:
    gates = ("--fail-on-errors", "--fail-below-slo", "0.9", "--slo-ttft-ms", "600000")
    code, found = bench(tmp_path / "ci" / "j.xml", lambda _: False, *gates)
    assert code == 0
    assert found == {
        "the run came to its end": [],
        "requests complete": [],
        "no request fails [1 user]": [],
        "90.0% of the requests meet the SLO [1 user]": [],
    }


def test_each_missed_condition_is_a_failure(tmp_path: Path) -> None:
    gates = ("--fail-on-errors", "--fail-below-slo", "0.9", "--slo-ttft-ms", "600000")
    code, found = bench(tmp_path / "j.xml", lambda number: number % 4 == 0, *gates)
    assert code == 5
    assert found["no request fails [1 user]"] == ["failure"]
    assert found["90.0% of the requests meet the SLO [1 user]"] == ["failure"]
    assert found["requests complete"] == []
    assert "broke on &lt;purpose&gt;" in (tmp_path / "j.xml").read_text()


def test_what_was_not_asked_is_not_judged(tmp_path: Path) -> None:
    code, found = bench(tmp_path / "j.xml", lambda number: number % 4 == 0)
    assert code == 0
    assert set(found) == {"the run came to its end", "requests complete"}


def test_a_dead_server_and_a_missing_slo(tmp_path: Path) -> None:
    code, found = bench(tmp_path / "dead.xml", lambda _: True, "--fail-below-slo", "0.5")
    assert code == 6
    assert found["requests complete"] == ["failure"]
    code, found = bench(tmp_path / "none.xml", lambda _: False, "--fail-below-slo", "0.5")
    assert (code, found) == (2, None)


@pytest.mark.parametrize("saturated", [False, True])
def test_a_saturated_client_proves_nothing(saturated: bool) -> None:
    made = report(Server(), 1, repeats=1, seconds=0.5, partial=saturated)
    client = CALM.model_copy(update={"saturated": saturated, "reasons": ("it was late",)})
    (point,) = made.points
    (only,) = point.repeats
    point = point.model_copy(update={"repeats": (only.model_copy(update={"client": client}),)})
    made = made.model_copy(update={"points": (point,)})
    found = {one.name: one for one in cases(made, on_errors=False, least_good=None)}
    kept = found["the client keeps up [4 users]"]
    assert kept.outcome == ("skipped" if saturated else "passed")
    assert ("it was late" in kept.message) is saturated
    ended = found["the run came to its end"].outcome
    assert ended == ("error" if saturated else "passed")


def test_a_run_that_broke_off_says_why() -> None:
    made = report(Server(), 1, repeats=1, seconds=0.5, failure="load process 2 died")
    (case,) = [
        one
        for one in cases(made, on_errors=False, least_good=None)
        if "came to its end" in one.name
    ]
    assert (case.outcome, case.message) == ("error", "load process 2 died")


def test_a_share_that_is_exactly_enough_is_enough() -> None:
    """The mean of three times 0.95 is a little less, in binary."""
    made = report(Server(), 1, repeats=1, seconds=0.5)
    (point,) = made.points
    for value, expected in ((sum([0.95] * 3) / 3, "passed"), (0.9499, "failed")):
        totals = point.totals | {"good_share": Estimate(value=value)}
        held = made.model_copy(update={"points": (point.model_copy(update={"totals": totals}),)})
        (case,) = [
            one for one in cases(held, on_errors=False, least_good=0.95) if "SLO" in one.name
        ]
        assert case.outcome == expected


def test_names_that_xml_cannot_hold_are_written_all_the_same() -> None:
    text = junit_xml("a\x1bb", "c\x00d", [Case("e\x07f", "failed", "g\x08h", "i\x0bj")])
    case = ElementTree.fromstring(text)[0][0]
    assert (case.get("classname"), case.get("name")) == ("c\ufffdd", "e\ufffdf")


def test_an_ablation_has_no_verdict_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "chat.yaml", "--ablate", "--junit", str(tmp_path / "j.xml")]) == 2
    assert "--junit" in capsys.readouterr().err
