"""Carry a checkpoint to a machine without network: one archive, checked on both ends."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import shutil
import sys
import tarfile
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from toolkit.checkpoint.digests import DigestCache, file_digest
from toolkit.checkpoint.files import belongs, ensure_space, members
from toolkit.checkpoint.known_digests import PACK_RECORD, PackRecord
from toolkit.checkpoint.verification import CheckpointReport, verify
from toolkit.errors import EnvironmentError_, SpecError, ValidationFailed
from toolkit.progress import Progress
from toolkit.spec.units import format_size
from toolkit.workspace import FileEntry
from toolkit.workspace.manifest import read_manifest

_BLOCK = 1 << 20
_LARGEST_RECORD = 16 << 20
_PACKED_MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")
_TAR_MAGIC = slice(257, 262)
_SUFFIXES = {".tar": "", ".tar.gz": "gz", ".tgz": "gz", ".tar.zst": "zst"}


@dataclass(frozen=True)
class Packed:
    """An archive that was written: ``size`` in bytes, ``sha256`` of the archive itself."""

    path: Path
    files: int
    size: int
    sha256: str


def pack(directory: Path, out: Path, progress: Progress, *, force: bool = False) -> Packed:
    """Write the checkpoint in ``directory`` as the archive ``out``.

    The archive depends on the files' contents only, and never holds a pickle. ``out`` ends with
    .tar (weights hardly compress), .tar.gz or, from Python 3.14 on, .tar.zst.

    Raises:
        SpecError: no sound checkpoint, another suffix, or ``out`` is there and ``force`` is false.
        EnvironmentError_: no space, or no zstd in this Python.
        ValidationFailed: a file changed while it was packed.
    """
    mode = _compression(out)
    if out.exists() and not force:
        raise SpecError("the archive exists already", where=str(out), hint="--force replaces it")
    verify(directory, digests=False)
    names = members(directory)
    digests = DigestCache(directory).sha256(names, progress)
    sizes = {name: (directory / name).stat().st_size for name in names}
    record = PackRecord(
        origin=_origin(directory),
        files={name: FileEntry(size=sizes[name], sha256=digests[name]) for name in names},
    )
    ensure_space(out.parent, sum(sizes.values()))
    with _replacing(out) as partial:
        progress.start(f"pack {out.name}", sum(sizes.values()), "B")
        with _writing(partial, mode) as tar:
            raw = record.model_dump_json(indent=2).encode()
            tar.addfile(_member(PACK_RECORD, len(raw)), io.BytesIO(raw))
            for name in names:
                with (directory / name).open("rb") as file:
                    reader = _Hashing(file, progress)
                    tar.addfile(_member(name, sizes[name]), reader)
                if reader.sha256 != digests[name]:
                    raise ValidationFailed(
                        f"{name} changed while it was packed", where=str(directory / name)
                    )
        digest = file_digest(partial)
        size = partial.stat().st_size
        progress.finish(format_size(size))
    return Packed(out, len(names), size, digest)


def unpack(archive: Path, out: Path, progress: Progress) -> CheckpointReport:
    """Make the directory ``out`` of an archive that :func:`pack` wrote, and verify it.

    Nothing in the archive is trusted: only plain files that its record lists, without folders,
    of the listed size and digest, and of names that a checkpoint has, are written.

    Raises:
        SpecError: no such archive, not one of ours, or ``out`` is not empty.
        ValidationFailed: the archive is damaged or was tampered with.
        EnvironmentError_: no space.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SpecError(
            "the target is there already and not empty",
            where=str(out),
            hint="name a directory that is empty or not there yet",
        )
    out = out.absolute()  # "." has no name of its own
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        with _reading(archive) as tar:
            record = _record(archive, tar)
            total = sum(entry.size for entry in record.files.values())
            ensure_space(partial, total)
            progress.start(f"unpack {archive.name}", total, "B")
            _extract(archive, tar, record, partial, progress)
            progress.finish(f"{len(record.files)} files")
        (partial / PACK_RECORD).write_text(record.model_dump_json(indent=2) + "\n")
        report = verify(partial, digests=False)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    # Their digests were checked as the files were written.
    return replace(report, path=out, digests_checked=len(record.files))


def _extract(
    archive: Path, tar: tarfile.TarFile, record: PackRecord, out: Path, progress: Progress
) -> None:
    missing = dict(record.files)
    while member := tar.next():
        entry = missing.pop(member.name, None)
        if entry is None or not member.isreg() or member.size != entry.size:
            raise _tampered(archive, f"its member {member.name!r} is not what the record lists")
        source = tar.extractfile(member)
        if source is None:
            raise _tampered(archive, f"its member {member.name!r} cannot be read")
        reader = _Hashing(source, progress)
        with (out / member.name).open("xb") as target:
            shutil.copyfileobj(reader, target, _BLOCK)
        if reader.sha256 != entry.sha256:
            raise _tampered(archive, f"{member.name} is damaged: its SHA-256 differs")
    if missing:
        raise _tampered(archive, f"{sorted(missing)[0]} is missing")


def _record(archive: Path, tar: tarfile.TarFile) -> PackRecord:
    first = tar.next()
    file = None
    if first and first.name == PACK_RECORD and first.isreg() and first.size <= _LARGEST_RECORD:
        file = tar.extractfile(first)
    if file is None:
        raise _no_archive(archive)
    try:
        record = PackRecord.model_validate_json(file.read())
    except ValidationError as error:
        raise _tampered(archive, f"its record is damaged: {error.errors()[0]['msg']}") from error
    for name, entry in record.files.items():
        odd = name in (".", "..") or "\\" in name or not name.isprintable()
        if odd or not belongs(name) or entry.size < 0:
            raise _tampered(archive, f"its record lists {name!r}, which no checkpoint has")
    return record


@contextmanager
def _reading(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        with _opened(archive) as file, tarfile.open(fileobj=_begun(file, archive)) as tar:
            yield tar
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _tampered(archive, f"it is damaged or truncated: {error}") from error


def _begun(file: IO[bytes], archive: Path) -> IO[bytes]:
    """``file`` at its beginning, which is that of a tar or of what compresses one."""
    head = file.read(_TAR_MAGIC.stop)
    file.seek(0)
    if not (head.startswith(_PACKED_MAGIC) or head[_TAR_MAGIC] == b"ustar"):
        raise _no_archive(archive)
    return file


def _opened(archive: Path) -> IO[bytes]:
    try:
        return archive.open("rb")
    except FileNotFoundError:
        raise SpecError(
            "no such archive",
            where=str(archive),
            hint="`toolkit checkpoint pack SOURCE ARCHIVE` makes one",
        ) from None
    except OSError as error:
        raise SpecError(
            f"the archive cannot be read: {error.strerror}", where=str(archive)
        ) from error


@contextmanager
def _writing(partial: Path, mode: str) -> Iterator[tarfile.TarFile]:
    if mode != "gz":
        with tarfile.open(partial, f"w:{mode}", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
            yield tar
        return
    # tarfile's own would write its name and the time into the header.
    with (
        partial.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        yield tar


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _compression(out: Path) -> str:
    for suffix, mode in _SUFFIXES.items():
        if out.name.endswith(suffix):
            if mode == "zst" and sys.version_info < (3, 14):
                raise EnvironmentError_(
                    "this Python has no zstd (3.14 has it)",
                    where=str(out),
                    hint="name the archive .tar, which costs little: weights hardly compress",
                )
            return mode
    raise SpecError(f"an archive's name ends with {', '.join(_SUFFIXES)}", where=str(out))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


def _origin(directory: Path) -> str:
    manifest = read_manifest(directory)
    notes = manifest.notes if manifest else None
    source = notes.get("source") if isinstance(notes, dict) else None
    return source if isinstance(source, str) else directory.name


def _no_archive(archive: Path) -> SpecError:
    return SpecError(
        "this is no archive of a checkpoint",
        where=str(archive),
        hint="it is made by `toolkit checkpoint pack`; a plain tar of a directory is "
        "unpacked by tar and used as a directory",
    )


def _tampered(archive: Path, what: str) -> ValidationFailed:
    return ValidationFailed(
        f"the archive is not as it was packed: {what}",
        where=str(archive),
        hint="copy it again, and compare the SHA-256 that `toolkit checkpoint pack` printed",
    )


class _Hashing(io.RawIOBase):
    """A file that is read through: it hashes what passes and reports progress."""

    def __init__(self, file: IO[bytes], progress: Progress | None) -> None:
        super().__init__()
        self._file = file
        self._progress = progress
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._digest.update(block)
        if self._progress:
            self._progress.advance(len(block))
        return block

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()
