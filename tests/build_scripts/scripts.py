"""Runs the scripts with programs in place of toolkit, docker, srun that write their calls down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "build_scripts"

RECORDER = f"""\
#!{sys.executable} -IS
import json, os, sys
told = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(told) + "\\n")
fails = os.environ.get("FAILS")
if fails and fails in " ".join(told):
    sys.exit(7)
if told[0] == "srun":
    words = [word for word in told[1:] if not word.startswith("-")]
    os.execvp(words[0], told[told.index(words[0]):])
"""


class Calls:
    """A directory of recording programs, first on PATH."""

    def __init__(self, directory: Path, programs: Sequence[str]) -> None:
        self.directory = directory
        self.log = directory / "calls.jsonl"
        self._bin = directory / "bin"
        self._bin.mkdir(parents=True)
        for name in programs:
            (self._bin / name).write_text(RECORDER)
            (self._bin / name).chmod(0o755)

    def run(self, script: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script of ``build_scripts``."""
        kept = ("TOOLKIT", "IMAGE", "REPORTS", "HF_TOKEN")
        base = {key: value for key, value in os.environ.items() if not key.startswith(kept)}
        environment: Mapping[str, str] = {
            **base,
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "CALLS": str(self.log),
            "HOME": str(self.directory / "home"),
            "PYTHON": sys.executable,
            **variables,
        }
        return subprocess.run(
            [str(SCRIPTS / script), *words],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def of(self, program: str) -> list[list[str]]:
        """The arguments of every call of one program, in order."""
        if not self.log.exists():
            return []
        calls = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [call[1:] for call in calls if call[0] == program]


def parse(words: Sequence[str]) -> dict[str, object]:
    """The parameters that the real command line makes of ``words``; raises what it would say."""
    from toolkit.cli.app import _load

    command = _load(words[0])
    with command.make_context(words[0], list(words[1:]), resilient_parsing=False) as context:
        return dict(context.params)
