"""Tests against mutants, in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mutants import Mutant

Outcome = Literal["killed", "survived", "equivalent"]
LEFT_BEHIND = (".git", ".cache", ".venv", ".toolkit", "dist", "build", "__pycache__", ".hypothesis",
               ".mypy_cache", ".ruff_cache", ".pytest_cache")  # fmt: skip
FAILED, BROKEN = 1, 2
_NAMED = re.compile(r"^(?:FAILED|ERROR) (?:collecting )?(\S+)", re.M)

# What most likely notices comes first, all else only for what it let pass. Tests of loads and of
# real processes are left out: one that fails by chance would pass for one that noticed.
RECORDS: tuple[str, ...] = ("tests/releases",)
RENDERED: tuple[str, ...] = ("tests/nvidia/test_golden_repositories.py", "tests/repository")
PROOFS: tuple[str, ...] = ("tests/nvidia", "tests/python_model")
USERS: tuple[str, ...] = ("tests/engine", "tests/capacity", "tests/pipeline")
CONTAINERS = ("command", "dry_run")
REST: tuple[str, ...] = (
    *("tests/cli", "tests/doctor", "tests/spec", "tests/build_scripts"),
    *(f"tests/serving/test_container_{part}.py" for part in CONTAINERS),
    *("tests/serving/test_launch_plan.py", "tests/test_field_failures.py"),
)
STAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "templates": (RENDERED, PROOFS, USERS, REST),
    "contracts": (RENDERED, PROOFS, USERS, REST),
    "": (RECORDS, RENDERED, USERS, PROOFS, REST),
}

_RELEASES = (
    "import hashlib, json\n"
    "from toolkit.releases import known_releases\n"
    "every = [known.model_dump(mode='json') for known in known_releases()]\n"
    "print(hashlib.sha256(json.dumps(every).encode()).hexdigest())\n"
)


@dataclass(frozen=True)
class Trial:
    """What became of a mutant.

    Attributes:
        by: The first test that failed.
        seconds: Of wall time.
    """

    mutant: Mutant
    outcome: Outcome
    by: str
    seconds: float

    def record(self) -> str:
        """One line of JSON."""
        content = asdict(self) | {"mutant": {**asdict(self.mutant), "text": None}}
        return json.dumps(content, ensure_ascii=False)


@contextmanager
def copied(root: Path, commit: str | None = None) -> Iterator[Path]:
    """A copy of the repository, gone afterwards.

    Args:
        root: The repository.
        commit: What to copy; the files as they lie there, without what tools left, if absent.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "repository"
        if commit is None:
            shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        else:
            packed = Path(folder) / "commit.tar"
            subprocess.run(["git", "archive", "-o", packed, commit], cwd=root, check=True)
            shutil.unpack_archive(packed, copy)
            packed.unlink()
        yield copy


def stages(group: str, without: Sequence[str] = ()) -> tuple[tuple[str, ...], ...]:
    """Which tests to ask, in order.

    Args:
        group: Of the mutant.
        without: Test files to leave out, in every stage.
    """
    ignored = tuple(f"--ignore={path}" for path in without)
    return tuple((*paths, *ignored) for paths in STAGES.get(group, STAGES[""]))


def attempt(copy: Path, mutant: Mutant, order: Iterable[Sequence[str]]) -> Trial:
    """Put the mutant in the copy's file, ask the tests, and put the file back."""
    began = time.monotonic()
    file = copy / mutant.file
    original = file.read_bytes()
    usual = _loaded(copy) if mutant.file.startswith("toolkit/releases/") else ""
    file.write_text(mutant.text, encoding="utf-8")
    try:
        outcome, by = _asked(copy, order)
        # A release may override what it takes over: then nothing of any release has changed.
        if outcome == "survived" and usual and _loaded(copy) == usual:
            outcome = "equivalent"
    finally:
        file.write_bytes(original)
    return Trial(mutant, outcome, by, round(time.monotonic() - began, 1))


def _asked(copy: Path, order: Iterable[Sequence[str]]) -> tuple[Outcome, str]:
    for paths in order:
        failed = failing(copy, paths, "-x")
        if failed:
            return "killed", failed[0]
    return "survived", "nothing"


def failing(copy: Path, paths: Sequence[str], *words: str) -> list[str]:
    """Names of tests that fail, or of files that cannot even be read; all of them without ``-x``.

    Raises:
        RuntimeError: pytest could not be asked.
    """
    usual = ("-q", "-p", "no:cacheprovider", "-o", "timeout=120", "-m", "not slow and not e2e")
    code, said = _python(copy, "-m", "pytest", *usual, *words, *paths)
    names = _NAMED.findall(said)
    if code not in (0, FAILED, BROKEN) or bool(code) != bool(names):
        raise RuntimeError(f"pytest ended with {code}: {said[-2000:]}")
    return list(dict.fromkeys(names))


def _loaded(copy: Path) -> str:
    return _python(copy, "-c", _RELEASES)[1]


def _python(copy: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        ["nice", "-n", "10", sys.executable, *words],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
