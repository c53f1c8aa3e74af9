"""The mutator itself: one real change at a time, the same ones for the same seed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mutants import PROSE, Mutant, draw, misspelt, sites
from trials import attempt, copied, failing, stages

ROOT = Path(__file__).parents[2]
DRAWN = draw(ROOT, 240, seed=7)
GROUPS = {"templates", "contracts", "containers", "build_flags", "llm_api", "speculation",
          "formats", "triton_models", "metrics", "terms", "release"}  # fmt: skip


def differences(before: Any, after: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        for key in before:
            yield from differences(before[key], after[key], (*path, key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, (*path, index))
    elif before != after or type(before) is not type(after):
        yield path


def test_every_part_of_the_records_is_met() -> None:
    assert {site.group for site in sites(ROOT)} == GROUPS
    assert {mutant.group for mutant in DRAWN} == GROUPS


def test_every_template_and_table_is_met() -> None:
    met = {site.file for site in sites(ROOT)}
    empty = {"toolkit/releases/tables/1.3.0rc27/build_flags.json",
             "toolkit/releases/tables/1.3.0rc27/containers.json"}  # fmt: skip
    for folder, kind in (("model_repo_templates", "j2"), ("toolkit/releases/tables", "json")):
        files = {str(file.relative_to(ROOT)) for file in (ROOT / folder).rglob(f"*.{kind}")}
        assert files - empty <= met


def test_a_seed_gives_the_same_mutants_and_another_gives_others() -> None:
    assert draw(ROOT, 30, seed=7) == DRAWN[:30]
    assert draw(ROOT, 30, seed=8) != DRAWN[:30]
    assert len(set(DRAWN)) == len(DRAWN)
    templates = draw(ROOT, 12, 1, ["templates"])
    assert {each.group for each in templates} == {"templates"}
    assert len({each.file for each in templates}) == len(templates), "files take turns"


@pytest.mark.parametrize("mutant", [m for m in DRAWN if m.file.endswith(".json")], ids=str)
def test_a_mutant_of_a_table_changes_one_thing_that_is_not_prose(mutant: Mutant) -> None:
    before = json.loads((ROOT / mutant.file).read_text())
    changed = list(differences(before, json.loads(mutant.text)))
    assert len(changed) == 1
    assert not PROSE & set(changed[0])


@pytest.mark.parametrize("mutant", [m for m in DRAWN if m.file.endswith(".j2")], ids=str)
def test_a_mutant_of_a_template_changes_one_word_where_it_says(mutant: Mutant) -> None:
    before = (ROOT / mutant.file).read_text()
    line, column = map(int, mutant.place.split(":"))
    start = sum(len(each) for each in before.splitlines(keepends=True)[: line - 1]) + column - 1
    end = start + len(mutant.before)
    assert before[start:end] == mutant.before
    assert mutant.text == before[:start] + mutant.after + before[end:]
    assert mutant.text != before
    assert not before.splitlines()[line - 1].startswith("#"), "a comment"


def test_a_misspelt_word_is_another_word() -> None:
    rng = random.Random(1)
    for word in ("a", "aa", "max_batch_size", "26.07"):
        assert all(misspelt(word, rng) not in ("", word) for _ in range(50))


# One table, one test that reads part of it.

TABLE = "toolkit/releases/tables/9.9/build_flags.json"
TEST = """
import json, pathlib
def test_names():
    table = pathlib.Path("toolkit/releases/tables/9.9/build_flags.json")
    assert [flag["name"] for flag in json.loads(table.read_text())] == ["max_batch_size"]
"""
LOADING = """
import json, pathlib
class Known:
    def model_dump(self, mode):
        table = pathlib.Path("toolkit/releases/tables/9.9/build_flags.json")
        return [{**flag, "unread": 0} for flag in json.loads(table.read_text())]
known_releases = lambda: [Known()]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    flag = {"name": "max_batch_size", "kind": "int", "unread": 3, "meaning": "batch"}
    files = {TABLE: json.dumps([flag]), "tests/test_it.py": TEST, "pyproject.toml": "",
             "toolkit/__init__.py": "",
             "toolkit/releases/__init__.py": LOADING}  # fmt: skip
    for place, text in files.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(text)
    return root


@pytest.mark.parametrize(
    ("changed", "outcome"), [("name", "killed"), ("kind", "survived"), ("unread", "equivalent")]
)
def test_a_mutant_is_tried_and_taken_back(repository: Path, changed: str, outcome: str) -> None:
    mutant = next(m for m in draw(repository, 9, 1) if m.sort == f"build_flags.{changed}")
    before = (repository / TABLE).read_bytes()
    trial = attempt(repository, mutant, [["tests"]])
    assert trial.outcome == outcome
    assert ("test_names" in trial.by) == (outcome == "killed")
    assert (repository / TABLE).read_bytes() == before
    assert json.loads(trial.record())["mutant"]["sort"] == mutant.sort


def test_no_tests_are_no_proof(repository: Path) -> None:
    mutant = draw(repository, 1, 1)[0]
    with pytest.raises(RuntimeError, match="pytest ended with 4"):
        attempt(repository, mutant, [["tests/nowhere.py"]])


def test_a_test_that_fails_anyway_can_be_left_out(repository: Path) -> None:
    with (repository / "tests/test_it.py").open("a") as out:
        out.write("def test_of_something_else():\n    assert False\n")
    useless = failing(repository, ["tests"])
    assert useless == ["tests/test_it.py::test_of_something_else"]
    assert failing(repository, ["tests", f"--deselect={useless[0]}"]) == []
    assert failing(repository, ["tests", "--deselect=tests/other.py"]) == useless


def test_files_are_left_out_of_every_stage() -> None:
    for group in GROUPS:
        assert all("--ignore=tests/a.py" in paths for paths in stages(group, ["tests/a.py"]))


def test_a_commit_is_copied_as_it_was(repository: Path) -> None:
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=repository, check=True, capture_output=True)

    git("init")
    git("add", TABLE)
    git("commit", "-m", "one table")
    (repository / TABLE).write_text("[]")
    (repository / ".cache").mkdir()
    with copied(repository, "HEAD") as copy:
        assert (copy / TABLE).read_text() != "[]"
        assert not (copy / "tests").exists()
    with copied(repository) as copy:
        assert (copy / TABLE).read_text() == "[]"
        assert not (copy / ".cache").exists()
    assert not copy.exists()


def test_it_can_be_run_as_a_module() -> None:
    words = [sys.executable, "-m", "tests.mutation.run", "--list", "--count", "3", "--seed", "7"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(mutant) for mutant in DRAWN[:3]]
