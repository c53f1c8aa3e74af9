"""``toolkit bench compare`` as a user meets it: exit codes, tables and files."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from simulated import Server, report

from toolkit.bench.compare import Comparison
from toolkit.bench.lengths import Fixed
from toolkit.bench.workload import Independent
from toolkit.cli.app import run

QUIET = Server(run=0.0, repeat=0.0, state=0.01, single=0.02)
LIMIT = ("--fail-if", "ttft_p95 > +10%")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports: base, same, slow (by a half), vague (one short repeat) and other work."""
    place = tmp_path_factory.mktemp("reports")
    slow = Server(slower=1.5, run=0.0, repeat=0.0, state=0.01, single=0.02)
    made = {
        "base": report(QUIET, 1),
        "same": report(QUIET, 2),
        "slow": report(slow, 3),
        "vague": report(Server(), 4, repeats=1, seconds=0.3),
    }
    made["other"] = made["same"].model_copy(
        update={"workload": Independent(prompt_tokens=Fixed(tokens=7))}
    )
    for name, one in made.items():
        (place / f"{name}.json").write_text(one.model_dump_json())
    return place


def compare(folder: Path, base: str, new: str, *arguments: str) -> int:
    files = [str(folder / f"{name}.json") for name in (base, new)]
    return run(["bench", "compare", *files, *arguments])


def test_exit_codes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(folder, "base", "same") == 0
    assert compare(folder, "base", "same", *LIMIT) == 0
    assert compare(folder, "base", "slow") == 0
    capsys.readouterr()
    assert compare(folder, "base", "slow", *LIMIT) == 5
    told = capsys.readouterr()
    assert "FAILED" in told.out
    assert "1 limit of 1 broken" in told.err
    assert compare(folder, "vague", "vague", *LIMIT) == 7
    assert "cannot tell" in capsys.readouterr().out
    assert compare(folder, "vague", "vague", *LIMIT, "--allow-undecided") == 0
    assert compare(folder, "base", "slow", "--fail-if", "nonsense > +1%") == 2
    assert compare(folder, "base", "other") == 2
    assert "workload.prompt_tokens" in capsys.readouterr().err
    assert compare(folder, "base", "absent") == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not a benchmark report"),
        ("[]", "not a benchmark report"),
        ('{"schema_version": 2, "points": "elsewhere"}', "schema 2, this toolkit reads 1"),
    ],
)
def test_what_is_no_report_of_this_version_is_refused(
    text: str, told: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "odd.json"
    file.write_text(text)
    assert run(["bench", "compare", str(folder / "base.json"), str(file)]) == 2
    assert told in capsys.readouterr().err


def test_the_options_belong_to_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "compare", "--help"]) == 0
    told = capsys.readouterr().out
    assert "BASE" in told
    assert "FILE]" not in told.splitlines()[1]
    assert run(["bench", "--help"]) == 0
    told = capsys.readouterr().out
    assert "compare" in told
    assert "Users at once" in told
    assert run(["bench", "compare"]) == 2
    assert run(["bench", "compare", "one.json"]) == 2


def test_a_file_of_another_name_is_still_a_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["bench", "./compare", "--scenario", "smoke"]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_json_is_the_comparison_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(folder, "base", "slow", *LIMIT, "--json") == 5
    found = Comparison.model_validate(json.loads(capsys.readouterr().out))
    assert [one.outcome for one in found.judgements] == ["failed"]
    by_name = {row.figure: row for row in found.rows}
    assert by_name["ttft_p50"].verdict == "worse"
    assert by_name["ttft_p50"].change == pytest.approx(0.5, abs=0.05)
    assert by_name["output_throughput"].verdict == "worse"
    assert by_name["error_share"].verdict == "none seen"


def test_junit_and_markdown(folder: Path, tmp_path: Path) -> None:
    junit, page = tmp_path / "ci" / "junit.xml", tmp_path / "page.md"
    gates = (*LIMIT, "--fail-if", "error_share > +50%", "--fail-if", "queue is > 3")
    assert compare(folder, "base", "slow", *gates, "--junit", str(junit)) == 2
    files = ("--junit", str(junit), "--markdown", str(page))
    assert compare(folder, "base", "slow", *gates[:4], *files) == 5
    suite = ElementTree.parse(junit).getroot()[0]
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["2", "1", "0", "0"]
    case = next(one for one in suite if one.find("failure") is not None)
    assert case.get("name") == "ttft_p95 > +10% [4 users]"
    failure = case.find("failure")
    assert failure is not None
    assert "->" in (failure.get("message") or "")
    text = page.read_text()
    assert "| ttft_p95 > +10% | 4 users |" in text
    assert "FAILED" in text
    assert compare(folder, "vague", "vague", *LIMIT, "--junit", str(junit)) == 7
    assert ElementTree.parse(junit).getroot()[0].get("errors") == "1"


def test_junit_without_a_limit_would_be_empty(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "junit.xml"
    assert compare(folder, "base", "same", "--junit", str(file)) == 2
    assert "--fail-if" in capsys.readouterr().err
    assert not file.exists()


def test_reports_of_one_repeat_say_what_is_assumed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(folder, "vague", "vague") == 0
    assert "3% is assumed" in capsys.readouterr().out
    assert compare(folder, "base", "same") == 0
    assert "assumed" not in capsys.readouterr().out
