"""What an artifact says about itself, and the key that its inputs give it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from toolkit import __version__

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None

MANIFEST = "manifest.json"
NOTES = "notes.json"
SHORT_KEY = 16
"""Hex digits of the key that name the directory."""


class FileEntry(BaseModel):
    """One file of an artifact: bytes and SHA-256 in hex."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str


class Manifest(BaseModel):
    """Where an artifact came from, what it cost and what it holds.

    ``created`` is UTC in ISO 8601, ``duration_s`` seconds, ``peak_memory_bytes`` the largest
    resident memory of the building process and its children together. ``versions`` names the
    software that built it; whatever must change the key belongs into ``inputs``. ``notes`` is
    what the stage itself wrote to ``notes.json``.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    key: str
    inputs: dict[str, JsonValue]
    versions: dict[str, str]
    created: str
    duration_s: float
    peak_memory_bytes: int
    files: dict[str, FileEntry]
    notes: JsonValue = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())


@dataclass(frozen=True)
class Artifact:
    """A finished directory; ``reused`` says that it was there before this call."""

    path: Path
    kind: str
    key: str
    manifest: Manifest
    reused: bool


def artifact_key(kind: str, inputs: Mapping[str, Json]) -> str:
    """SHA-256 of the canonical JSON of kind and inputs.

    Raises:
        ValueError: an input is not JSON, for example NaN.
    """
    text = json.dumps(
        {"kind": kind, "inputs": inputs},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
        default=_as_json,
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _as_json(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise ValueError(f"{type(value).__name__} is not JSON, so it cannot be an artifact's input")


def plain_json(inputs: Mapping[str, Json]) -> dict[str, JsonValue]:
    """``inputs`` as they come back from a manifest: lists and dicts only."""
    plain: dict[str, JsonValue] = json.loads(json.dumps(inputs, sort_keys=True, default=_as_json))
    return plain


def tool_versions() -> dict[str, str]:
    """This package, Python and the platform: what every artifact records."""
    return {
        "toolkit": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest in ``directory``; None where there is none or it cannot be read."""
    try:
        return Manifest.model_validate_json((directory / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def listed_files(directory: Path) -> Iterator[str]:
    """Paths below ``directory`` in a stable order, without the manifest and the notes."""
    found = []
    for folder, _, names in os.walk(directory):
        relative = Path(folder).relative_to(directory)
        found += [(relative / name).as_posix() for name in names]
    return iter(sorted(set(found) - {MANIFEST, NOTES}))


def hash_files(directory: Path, tick: Callable[[], None] = lambda: None) -> dict[str, FileEntry]:
    """Size and digest of every file; ``tick`` is called after each, on this thread."""
    names = list(listed_files(directory))
    entries: dict[str, FileEntry] = {}
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        digests = pool.map(lambda name: _entry(directory / name), names)
        for name, entry in zip(names, digests, strict=True):
            entries[name] = entry
            tick()
    return entries


def _entry(path: Path) -> FileEntry:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        return FileEntry(size=file.tell(), sha256=digest.hexdigest())


def misfits(directory: Path, manifest: Manifest) -> list[str]:
    """What is missing or has another size than the manifest says; reads no file."""
    problems = []
    for name, entry in manifest.files.items():
        try:
            size = (directory / name).stat().st_size
        except OSError:
            problems.append(f"{name} is missing")
            continue
        if size != entry.size:
            problems.append(f"{name} has {size} bytes, expected {entry.size}")
    return problems
