"""Digests of files, and a memory of them so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from toolkit.progress import Progress
from toolkit.workspace import user_cache_path

_BLOCK = 4 << 20

Algorithm: TypeAlias = Literal["sha256", "git-sha1"]


@dataclass(frozen=True)
class Digest:
    """A checksum in hex; ``git-sha1`` is git's blob id, which the hub gives for small files."""

    algorithm: Algorithm
    value: str

    def of(self, path: Path, advance: Callable[[int], None] = lambda _: None) -> Digest:
        """The digest of ``path`` by the same algorithm."""
        return Digest(self.algorithm, file_digest(path, self.algorithm, advance))


def file_digest(
    path: Path, algorithm: Algorithm = "sha256", advance: Callable[[int], None] = lambda _: None
) -> str:
    """The digest of a whole file in hex; ``advance`` gets the bytes of each block read."""
    with path.open("rb") as file:
        if algorithm == "sha256":
            digest = hashlib.sha256()
        else:
            digest = hashlib.sha1(usedforsecurity=False)
            digest.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while block := file.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()


class DigestCache:
    """SHA-256 of the files of one directory, remembered by path, inode, size and time.

    The memory lies in the user's cache and is a convenience: whatever differs is read anew.
    The change time does not count, because linking a file elsewhere alters it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        name = hashlib.sha256(str(self._directory).encode()).hexdigest()[:24]
        self._store = user_cache_path() / "digests" / f"{name}.json"
        self._known = self._load()

    def sha256(self, names: Iterable[str], progress: Progress) -> dict[str, str]:
        """Digest of each file ``names`` of the directory; shows progress if any must be read."""
        stamps = {name: self._stamp(name) for name in names}
        stale = [name for name in stamps if self._known.get(name, ("", ""))[0] != stamps[name]]
        if stale:
            total = sum((self._directory / name).stat().st_size for name in stale)
            progress.start(f"read {self._directory.name}", total, "B")
            for name in stale:
                value = file_digest(self._directory / name, "sha256", progress.advance)
                self._known[name] = (stamps[name], value)
            progress.finish(f"digests of {len(stale)} files")
            self._save()
        return {name: self._known[name][1] for name in stamps}

    def remember(self, digests: Mapping[str, str]) -> None:
        """Take over digests that somebody has just computed."""
        self._known |= {name: (self._stamp(name), value) for name, value in digests.items()}
        self._save()

    def _stamp(self, name: str) -> str:
        stat = (self._directory / name).stat()
        return f"{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"

    def _load(self) -> dict[str, tuple[str, str]]:
        try:
            files = json.loads(self._store.read_text())
            return {str(name): (str(stamp), str(value)) for name, (stamp, value) in files.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _save(self) -> None:
        # Where nothing can be kept (a home of containers, a full disk) files are read again.
        with contextlib.suppress(OSError):
            self._store.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._store.with_suffix(f".{uuid.uuid4().hex[:8]}.tmp")
            temporary.write_text(json.dumps(self._known))
            temporary.replace(self._store)
