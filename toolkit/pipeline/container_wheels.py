"""Wheels of the packages that a build's image lacks, fetched on this side of the container."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from toolkit.errors import EnvironmentError_
from toolkit.progress import Progress
from toolkit.serving import container_run
from toolkit.serving.container_engines import Client
from toolkit.workspace import user_cache_path

REQUIRED = (
    "typer",
    "rich",
    "pydantic",
    "pyyaml",
    "jinja2",
    "numpy",
    "tritonclient",
    "hpack",
    "huggingface-hub",
    "safetensors",
    "tokenizers",
    "ml-dtypes",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "orjson",
    "prometheus-client",
)
"""The package's own dependencies, as pyproject.toml declares them."""

SOURCE = "/opt/toolkit-source"
SCRIPT = f"{SOURCE}/toolkit/pipeline/in_container.py"
_EXTRAS = {"tritonclient": ("grpc", "http")}


def wheels_for(client: Client, image_id: str, *, offline: bool, progress: Progress) -> Path:
    """A directory with a wheel of every package that the image lacks."""
    answer = client.ask(*asking(image_id))
    try:
        told = json.loads(answer.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise EnvironmentError_(
            "the image's Python does not run",
            where=image_id,
            details=(answer.stderr or answer.stdout).strip().splitlines()[-5:],
        ) from None
    missing = {name: closure()[name] for name in told["missing"]}
    key = "-".join(f"{name}{version}" for name, version in sorted(missing.items()))
    shelf = user_cache_path() / "wheels" / f"python{told['python']}" / _short(key)
    if (shelf / ".complete").exists():
        return shelf
    if offline and missing:
        raise EnvironmentError_(
            f"the image lacks {', '.join(sorted(missing))}, and --offline forbids to fetch them",
            hint="run once without --offline; the wheels are kept in " + str(shelf.parent),
        )
    _download(missing, told["python"], shelf, progress)
    return shelf


def _short(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def asking(image: str) -> list[str]:
    """``run`` that tells what the image lacks."""
    script = Path(__file__).with_name("in_container.py")
    words = ["run", "--rm", "--pull", "never", "--network", "none", "--cap-drop", "ALL"]
    words += ["--security-opt", "no-new-privileges", *container_run.mount(script, SCRIPT)]
    words += ["--entrypoint", "python3", image]
    return [*words, SCRIPT, "lacks", " ".join(sorted(closure()))]


def _download(missing: dict[str, str], python: str, shelf: Path, progress: Progress) -> None:
    """Fetch the wheels through pip, for the image's Python; whole or not at all."""
    temporary = shelf.with_name(f"{shelf.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    wanted = [f"{name}=={version}" for name, version in sorted(missing.items())]
    progress.start(f"fetching {len(wanted)} packages that the image lacks")
    try:
        if wanted:
            _pip(wanted, python, temporary)
        (temporary / ".complete").touch()
        shutil.rmtree(shelf, ignore_errors=True)
        temporary.rename(shelf)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    progress.finish()


def _pip(wanted: Sequence[str], python: str, target: Path) -> None:
    machine = os.uname().machine
    platforms = (
        f"manylinux_2_28_{machine}",
        f"manylinux_2_17_{machine}",
        f"manylinux2014_{machine}",
    )
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    words += ["--no-deps", "--only-binary=:all:", "--python-version", python, "--dest", str(target)]
    words += [word for platform in platforms for word in ("--platform", platform)]
    done = subprocess.run([*words, *wanted], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EnvironmentError_(
            "packages that the image lacks could not be fetched",
            hint="check network and proxy (HTTPS_PROXY), or put them into an image of yours and "
            "name it under serving.image",
            details=done.stderr.strip().splitlines()[-5:],
        )


def closure(names: Iterable[str] = REQUIRED) -> dict[str, str]:
    """The packages below ``names`` with the versions of this environment."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    pending: list[tuple[str, tuple[str, ...]]] = [
        (canonicalize_name(name), _EXTRAS.get(name, ())) for name in names
    ]
    while pending:
        name, extras = pending.pop()
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform or Python
        found[name] = distribution.version
        for text in distribution.requires or ():
            wanted = Requirement(text)
            contexts = ({"extra": extra} for extra in ("", *extras))
            if wanted.marker is None or any(map(wanted.marker.evaluate, contexts)):
                pending.append((canonicalize_name(wanted.name), tuple(wanted.extras)))
    return found
