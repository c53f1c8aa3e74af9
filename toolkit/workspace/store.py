"""The workspace: produce an artifact once, find it ever after, check it, throw it away."""

from __future__ import annotations

import builtins
import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from pydantic import JsonValue, TypeAdapter, ValidationError

from toolkit.errors import BuildError, EnvironmentError_
from toolkit.progress import Progress, Silent
from toolkit.workspace import lock as locks
from toolkit.workspace.manifest import (
    MANIFEST,
    NOTES,
    SHORT_KEY,
    Artifact,
    Json,
    Manifest,
    artifact_key,
    hash_files,
    listed_files,
    misfits,
    plain_json,
    read_manifest,
    tool_versions,
)
from toolkit.workspace.memory import MemoryPeak

_NAME = re.compile(rf"^[0-9a-f]{{{SHORT_KEY}}}$")
_LEFTOVER = re.compile(rf"^\.[0-9a-f]{{{SHORT_KEY}}}\.(.*partial|trash-.*)$")


@dataclass(frozen=True)
class Pruned:
    """What :meth:`Workspace.prune` removed (or would)."""

    artifacts: tuple[Artifact, ...]
    leftovers: tuple[Path, ...]
    bytes: int


@dataclass(frozen=True)
class Workspace:
    """All artifacts below ``root``, one folder a kind: ``root/kind/<first 16 of key>``."""

    root: Path

    def produce(
        self,
        kind: str,
        inputs: Mapping[str, Json],
        build: Callable[[Path], None],
        *,
        progress: Progress,
        resume: bool = False,
    ) -> Artifact:
        """The artifact of ``inputs``: found in milliseconds, or built by ``build(directory)``.

        Args:
            kind: Name of the stage, a folder below the root.
            inputs: Everything that decides what is built, upstream keys and versions included.
            build: Fills an empty directory; may write ``notes.json``, which moves into the
                manifest.
            progress: Told when another process is waited for.
            resume: Keep what a failed or killed ``build`` left and hand it to the next one.

        Raises:
            EnvironmentError_: the disk is full, or the workspace cannot be written.
            BuildError: another process took over the lock meanwhile.
            Exception: whatever ``build`` raises; nothing stays, unless ``resume``.
        """
        key = artifact_key(kind, inputs)
        if found := self.find(kind, key):
            return found
        self._prepare(kind)
        try:
            return self._build(kind, key, inputs, build, progress, resume)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(self.root, kind) from error
            raise

    def _build(
        self,
        kind: str,
        key: str,
        inputs: Mapping[str, Json],
        build: Callable[[Path], None],
        progress: Progress,
        resume: bool,
    ) -> Artifact:
        what = f"{kind} {key[:SHORT_KEY]}"
        with locks.hold(self._beside(kind, key, "lock"), what, progress) as lock:
            if found := self.find(kind, key):
                return found
            partial = self._inherited(kind, key, lock.owner.token)
            try:
                if not _complete(partial, key):
                    self._fill(partial, kind, key, inputs, build, resume)
                locks.ensure_held(lock, what)
                self._publish(partial, self._place(kind, key), progress)
            except BaseException as error:
                if not resume:
                    shutil.rmtree(partial, ignore_errors=True)
                if isinstance(error, OSError):
                    # Who takes the lock takes the directory too: its absence is no fault of ours.
                    locks.ensure_held(lock, what)
                raise
            found = self.find(kind, key)
        if found is None:
            raise BuildError(f"{what} vanished right after it was written", where=str(self.root))
        return replace(found, reused=False)

    def find(self, kind: str, key: str) -> Artifact | None:
        """The finished artifact, if every file is there with its size (contents: verify)."""
        path = self._place(kind, key)
        manifest = read_manifest(path)
        if manifest is None or manifest.key != key or misfits(path, manifest):
            return None
        return Artifact(path, kind, key, manifest, reused=True)

    def digest(self, artifact: Artifact) -> str:
        """What a later stage puts among its inputs to depend on this artifact."""
        return artifact.key

    def verify(self, artifact: Artifact, progress: Progress | None = None) -> list[str]:
        """Read every file and compare; an empty list says that all is as it was built."""
        progress = progress or Silent()
        manifest = read_manifest(artifact.path)
        if manifest is None:
            return [f"{MANIFEST} is missing or unreadable"]
        if artifact_key(manifest.kind, manifest.inputs) != manifest.key:
            return [f"{MANIFEST} does not match its own key"]
        problems = misfits(artifact.path, manifest)
        present = set(listed_files(artifact.path))
        problems += [
            f"{name} does not belong here" for name in sorted(present - set(manifest.files))
        ]
        progress.start(f"verify {artifact.kind} {artifact.key[:SHORT_KEY]}", len(present), "files")
        for name, entry in hash_files(artifact.path, progress.advance).items():
            expected = manifest.files.get(name)
            if expected and expected.size == entry.size and expected.sha256 != entry.sha256:
                problems.append(f"{name} was changed: its SHA-256 is another one")
        progress.finish("damaged" if problems else "intact")
        return problems

    def list(self, kind: str | None = None) -> list[Artifact]:
        """Finished artifacts, oldest first."""
        found = []
        for directory in sorted(self.root.glob(f"{kind or '*'}/*")):
            manifest = read_manifest(directory) if _NAME.match(directory.name) else None
            if manifest is not None:
                found.append(Artifact(directory, manifest.kind, manifest.key, manifest, True))
        return sorted(found, key=lambda artifact: (artifact.manifest.created, artifact.key))

    def unreadable(self) -> builtins.list[Path]:
        """Directories of artifacts whose manifest is missing or damaged; no build finds them."""
        kinds = (guard.parent for guard in self.root.glob(f"*/{locks.GUARD}"))
        directories = (path for kind in kinds for path in kind.iterdir() if _NAME.match(path.name))
        return sorted(path for path in directories if path.is_dir() and not read_manifest(path))

    def remove(self, artifact: Artifact) -> None:
        """Delete one artifact: out of sight at once, then file by file."""
        self._discard(artifact.path)

    def prune(self, keep: Collection[str], *, dry_run: bool = False) -> Pruned:
        """Remove artifacts whose key is not in ``keep``, what is unreadable, and what dead builds
        left behind."""
        artifacts = [found for found in self.list() if found.key not in keep]
        leftovers = [path for path in self.root.glob("*/.*") if self._abandoned(path)]
        leftovers += self.unreadable()
        freed = sum(artifact.manifest.size for artifact in artifacts)
        freed += sum(_tree_size(path) for path in leftovers)
        if not dry_run:
            for artifact in artifacts:
                self.remove(artifact)
            for path in leftovers:
                with locks.hold(self._lock_of(path), path.name, Silent()):
                    shutil.rmtree(path, ignore_errors=True)
        return Pruned(tuple(artifacts), tuple(leftovers), freed)

    def _abandoned(self, path: Path) -> bool:
        return bool(_LEFTOVER.match(path.name)) and not locks.live_owner(self._lock_of(path))

    def _lock_of(self, leftover: Path) -> Path:
        return leftover.with_name(f".{leftover.name.lstrip('.')[:SHORT_KEY]}.lock")

    def _place(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:SHORT_KEY]

    def _beside(self, kind: str, key: str, what: str) -> Path:
        return self.root / kind / f".{key[:SHORT_KEY]}.{what}"

    def _inherited(self, kind: str, key: str, owner: str) -> Path:
        """The owner's own directory, with what the last one left in its place.

        It bears the owner's name, so that one who lost the lock without knowing it (a suspended
        machine) finds its directory gone instead of writing into ours.
        """
        own = self._beside(kind, key, f"{owner[:8]}.partial")
        for left in sorted((self.root / kind).glob(f".{key[:SHORT_KEY]}.*partial")):
            if own.exists():
                shutil.rmtree(left)
            else:
                left.rename(own)
        return own

    def _prepare(self, kind: str) -> None:
        try:
            (self.root / kind).mkdir(parents=True, exist_ok=True)
            ignore = self.root / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            locks.prepare(self.root / kind)
        except OSError as error:
            raise EnvironmentError_(
                f"the workspace cannot be written: {error.strerror}",
                where=str(self.root),
                hint="set TOOLKIT_WORKSPACE to a directory that can",
            ) from error

    def _fill(
        self,
        partial: Path,
        kind: str,
        key: str,
        inputs: Mapping[str, Json],
        build: Callable[[Path], None],
        resume: bool,
    ) -> None:
        if not resume and partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        for stale in (MANIFEST, NOTES, f".{MANIFEST}"):
            (partial / stale).unlink(missing_ok=True)
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        begun = time.monotonic()
        with MemoryPeak() as memory:
            build(partial)
        manifest = Manifest(
            kind=kind,
            key=key,
            inputs=plain_json(inputs),
            versions=tool_versions(),
            created=created,
            duration_s=round(time.monotonic() - begun, 3),
            peak_memory_bytes=memory.bytes,
            files=hash_files(partial),
            notes=_notes(partial),
        )
        _seal(partial, manifest)

    def _publish(self, partial: Path, place: Path, progress: Progress) -> None:
        (partial / NOTES).unlink(missing_ok=True)
        if place.exists():
            progress.note(f"{place.name} was damaged and is replaced")
            self._discard(place)
        partial.rename(place)
        _sync(place.parent)

    def _discard(self, path: Path) -> None:
        trash = path.with_name(f".{path.name}.trash-{uuid.uuid4().hex[:8]}")
        path.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _complete(partial: Path, key: str) -> bool:
    """A build that ended but was killed before the rename: the manifest is written last."""
    manifest = read_manifest(partial)
    return manifest is not None and manifest.key == key and not misfits(partial, manifest)


def _seal(directory: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        _sync(directory / name)
    for folder, _, _ in os.walk(directory):
        _sync(Path(folder))
    temporary = directory / f".{MANIFEST}"
    temporary.write_text(manifest.model_dump_json(indent=2) + "\n")
    _sync(temporary)
    temporary.rename(directory / MANIFEST)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _notes(directory: Path) -> JsonValue:
    path = directory / NOTES
    if not path.exists():
        return None
    try:
        notes: JsonValue = TypeAdapter(JsonValue).validate_json(path.read_bytes())
    except ValidationError as error:
        raise BuildError(f"a stage wrote a {NOTES} that is not JSON", where=str(path)) from error
    return notes


def _tree_size(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def _disk_full(root: Path, kind: str) -> EnvironmentError_:
    return EnvironmentError_(
        f"the disk is full while writing the {kind} artifact",
        where=str(root),
        hint="free space (`toolkit artifacts prune`) or set TOOLKIT_WORKSPACE to another disk",
    )
