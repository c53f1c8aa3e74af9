"""Runs inside the build's container, with nothing but its Python: brings what the image lacks.

Two uses, both from the host's :mod:`toolkit.pipeline.container_build`::

    python3 in_container.py lacks 'NAME NAME ...'     what is not installed here, as JSON
    python3 in_container.py run WHEELS SITE -- ...    install the wheels into SITE, run toolkit

Only packages that are missing are installed, into a directory of their own: the image's torch,
numpy and tensorrt_llm are never replaced or shadowed. No network is used.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys


def lacks(names: list[str]) -> dict[str, object]:
    """The packages of ``names`` that are not installed here, and this Python's version."""
    missing = []
    for name in names:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor}", "missing": missing}


def install(wheels: str, site: str) -> int:
    """Install every wheel of the directory ``wheels`` into ``site``."""
    found = sorted(name for name in os.listdir(wheels) if name.endswith(".whl"))  # noqa: PTH208
    if not found:
        return 0
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-index", "--no-deps", "--no-compile", "--target", site]
    # A constraint file of the image is about its own packages.
    environment = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    return subprocess.run(
        [*command, *(f"{wheels}/{name}" for name in found)], env=environment, check=False
    ).returncode


def main(arguments: list[str]) -> int:
    """Do what the first word says."""
    if arguments[0] == "lacks":
        sys.stdout.write(json.dumps(lacks(arguments[1].split())) + "\n")
        return 0
    _, wheels, site, _, *words = arguments
    if install(wheels, site):
        sys.stderr.write("the packages that the image lacks could not be installed\n")
        return 4
    return toolkit(words, site)


def toolkit(words: list[str], site: str) -> int:
    """Become the toolkit whose source this file is part of."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, site])}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # the source is mounted read-only
    return os.execve(sys.executable, [sys.executable, "-m", "toolkit", *words], environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
