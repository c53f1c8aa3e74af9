"""Imports go one way only, and the check that says so would notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"
    return subprocess.run(
        [sys.executable, "-c", command],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
    )


def test_imports_never_point_upwards() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout


def test_an_upward_import_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "toolkit", tmp_path / "toolkit")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "toolkit" / "workspace" / "places.py").open("a") as file:
        file.write("\n\ndef cheat() -> None:\n    import toolkit.serving\n")
    done = lint(tmp_path)
    assert done.returncode != 0
    assert "toolkit.workspace is not allowed to import toolkit.serving" in done.stdout


def test_no_folder_of_tests_passes_for_a_package() -> None:
    # pytest puts every folder with test files on the path, and a folder without __init__.py
    # below it can then be imported: torch and transformers take that for the real triton.
    on_path = {file.parent for file in (ROOT / "tests").rglob("*.py")}
    assert not [str(folder) for folder in on_path if (folder / "triton").is_dir()]
