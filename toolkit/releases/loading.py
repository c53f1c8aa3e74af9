"""Finding and reading the tables."""

from __future__ import annotations

import difflib
import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import ValidationError

from toolkit.errors import SpecError
from toolkit.releases.entries import Runtime
from toolkit.releases.merging import merged
from toolkit.releases.model import Release

SECTIONS = (
    "containers",
    "build_flags",
    "llm_api",
    "speculation",
    "formats",
    "triton_models",
    "metrics",
    "terms",
)
"""The files of a table beside release.json, each a list of named entries."""

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:rc(\d+))?(?:\.post(\d+))?")
_OWN = frozenset({"version", "extends", "commit", "released", "stable", "notes", "sources"})
_TABLES = files(__package__) / "tables"


@cache
def known_versions() -> tuple[str, ...]:
    """The versions that have a table, oldest first."""
    names = (entry.name for entry in _TABLES.iterdir() if entry.is_dir())
    return tuple(sorted((name for name in names if _VERSION.fullmatch(name)), key=_order))


def known_releases() -> tuple[Release, ...]:
    """Every release that has a table, oldest first."""
    return tuple(release(version) for version in known_versions())


def release(version: str, *, where: str = "engine.release") -> Release:
    """The table of one release.

    Args:
        version: As PyPI writes it (``1.2.1``), or its beginning (``1.2``): the newest release
            that begins so, a stable one before a candidate.
        where: Place of an error.

    Raises:
        SpecError: no table is known; the hint names the nearest ones.
    """
    if version in known_versions():
        return _load(version)
    begun = [known for known in known_versions() if known.startswith(f"{version}.")]
    if begun:
        return _load(max(begun, key=lambda known: ("rc" not in known, _order(known))))
    near = difflib.get_close_matches(version, known_versions(), n=2, cutoff=0.6)
    raise SpecError(
        f"TensorRT-LLM {version} is not among the releases that the toolkit knows",
        where=where,
        hint=(f"did you mean {' or '.join(near)}? " if near else "")
        + f"known: {', '.join(known_versions())}",
    )


def newest(runtime: Runtime, *, candidates: bool = False) -> Release:
    """The newest release that has a runtime.

    Args:
        runtime: What it has to have.
        candidates: Whether a release candidate may be the answer.
    """
    return max(
        (r for r in known_releases() if runtime in r.runtimes and (r.stable or candidates)),
        key=lambda r: _order(r.version),
    )


def default_release(runtime: Runtime) -> Release:
    """What a deployment that names no release gets: the newest stable one with a Triton image."""
    return max(
        (r for r in known_releases() if runtime in r.runtimes and r.stable and r.containers),
        key=lambda r: _order(r.version),
    )


def table_text(version: str, section: str) -> str | None:
    """The JSON text of one file of a table; None if the table does not have it."""
    path = _TABLES / version / f"{section}.json"
    return path.read_text(encoding="utf-8") if path.is_file() else None


@cache
def _load(version: str) -> Release:
    data = _whole(version)
    api = data.pop("llm_api")
    data["llm_args"] = {"version": version, "classes": api}
    data["speculation_methods"] = data.pop("speculation")
    try:
        # As JSON, so that pydantic's strict mode takes arrays for tuples.
        return Release.model_validate_json(json.dumps(data))
    except ValidationError as error:  # a table's mistake, never a user's
        raise RuntimeError(f"release table {version}: {error}") from error


@cache
def _own(version: str) -> dict[str, Any]:
    head: dict[str, Any] = json.loads(table_text(version, "release") or "")
    for section in SECTIONS:
        text = table_text(version, section)
        if text is not None:
            head[section] = json.loads(text)
    return head


def _whole(version: str) -> dict[str, Any]:
    own = _own(version)
    if own["extends"] is None:
        return dict(own)
    below = {key: value for key, value in _whole(own["extends"]).items() if key not in _OWN}
    whole: dict[str, Any] = merged(below, own)
    return whole


def _order(version: str) -> tuple[int, ...]:
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(f"{version!r} is not a version")
    major, minor, patch, candidate, post = match.groups()
    return (
        int(major),
        int(minor),
        int(patch),
        int(candidate) if candidate else 10**6,
        int(post or 0),
    )
