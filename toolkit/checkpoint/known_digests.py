"""Digests that somebody vouched for: where a checkpoint's files should have them from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from toolkit.checkpoint.digests import Digest
from toolkit.workspace import FileEntry
from toolkit.workspace.manifest import read_manifest

PACK_RECORD = "packed-checkpoint.json"


class PackRecord(BaseModel):
    """What an archive holds, as its first member and beside the files it becomes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    origin: str
    files: dict[str, FileEntry]


_SUMS = ("SHA256SUMS", "sha256sums.txt", "sha256sum.txt")
_LINE = re.compile(r"^(?P<value>[0-9a-fA-F]{64})(?:\s+\*?(?P<name>.+?))?\s*$")


def known_digests(directory: Path) -> dict[str, Digest]:
    """Expected digest by file name, from whatever stands beside or behind the files.

    Sources, the first that knows a file wins: the manifest of a workspace's artifact,
    ``NAME.sha256`` and ``SHA256SUMS`` files, the metadata of a download by huggingface-hub
    into a directory, the blob names of its cache, and the record of ``toolkit checkpoint pack``.
    """
    found: dict[str, Digest] = {}
    for source in (_packed, _hub_cache, _hub_metadata, _sums, _sidecars, _manifest):
        found |= source(directory)
    return {name: digest for name, digest in found.items() if (directory / name).is_file()}


def digest_of_etag(etag: str) -> Digest | None:
    """The hub's entity tag is the SHA-256 of large files and git's blob id of small ones."""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return Digest("sha256", etag)
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        return Digest("git-sha1", etag)
    return None


def _packed(directory: Path) -> dict[str, Digest]:
    try:
        record = PackRecord.model_validate_json((directory / PACK_RECORD).read_bytes())
    except (OSError, ValidationError):
        return {}
    return {name: Digest("sha256", entry.sha256) for name, entry in record.files.items()}


def _manifest(directory: Path) -> dict[str, Digest]:
    manifest = read_manifest(directory)
    if manifest is None:
        return {}
    return {name: Digest("sha256", entry.sha256) for name, entry in manifest.files.items()}


def _sidecars(directory: Path) -> dict[str, Digest]:
    found = {}
    for path in directory.glob("*.sha256"):
        match = _LINE.match(_text(path).splitlines()[0] if _text(path) else "")
        if match:
            found[path.name.removesuffix(".sha256")] = Digest("sha256", match["value"].lower())
    return found


def _sums(directory: Path) -> dict[str, Digest]:
    found = {}
    for name in _SUMS:
        for line in _text(directory / name).splitlines():
            match = _LINE.match(line)
            if match and match["name"]:
                listed = match["name"].removeprefix("./")
                found[listed] = Digest("sha256", match["value"].lower())
    return found


def _hub_metadata(directory: Path) -> dict[str, Digest]:
    found = {}
    for path in (directory / ".cache" / "huggingface" / "download").glob("*.metadata"):
        lines = _text(path).splitlines()  # commit, entity tag, time
        digest = digest_of_etag(lines[1].strip()) if len(lines) > 1 else None
        if digest:
            found[path.name.removesuffix(".metadata")] = digest
    return found


def _hub_cache(directory: Path) -> dict[str, Digest]:
    found = {}
    for path in directory.iterdir():
        if path.is_symlink() and path.resolve().parent.name == "blobs":
            digest = digest_of_etag(path.resolve().name)
            if digest:
                found[path.name] = digest
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
