"""API keys: made once, shown once, kept as hashes in a file that people edit.

A key is ``tk_<id>_<secret>``: the id finds the entry, the secret is 256 random bits. What has
that much entropy cannot be guessed from its SHA-256, so no slow hash is needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from toolkit.errors import SpecError
from toolkit.spec.gateway import ClassName
from toolkit.spec.section import Section, as_tuple

_LOG = logging.getLogger(__name__)
_KEY = re.compile(r"tk_([a-z0-9-]{1,40})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"").hexdigest()

KeyId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]


class KeyLimits(Section):
    """What one key may take; None: no limit. Tokens are prompt and answer together."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    concurrent_requests: int | None = Field(default=None, ge=1)
    concurrent_tokens: int | None = Field(default=None, ge=1)


class Key(Section):
    """One entry of the file."""

    id: KeyId
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    request_class: ClassName | None = None
    models: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    limits: KeyLimits = KeyLimits()


class _File(Section):
    keys: Annotated[tuple[Key, ...], BeforeValidator(as_tuple)] = ()


@dataclass(frozen=True)
class NewKey:
    """A key that was just made: ``text`` is shown once and kept nowhere."""

    text: str
    entry: Key


def make(identity: str, **fields: object) -> NewKey:
    """A new key for ``identity``.

    Raises:
        SpecError: the id has other characters than a-z, 0-9 and ``-``.
    """
    secret = secrets.token_urlsafe(32)
    text = f"tk_{identity}_{secret}"
    if not _KEY.fullmatch(text):
        raise SpecError(
            f"{identity!r} cannot name a key",
            where="id",
            hint="use 1 to 40 lower-case letters, digits and -",
        )
    try:
        entry = Key.model_validate({"id": identity, "sha256": _digest(text), **fields})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        raise SpecError(f"{first['msg']}", where=place) from None
    return NewKey(text, entry)


def read(path: Path) -> dict[str, Key]:
    """The entries of a key file by id.

    Raises:
        SpecError: not readable, not such a file, or readable by everybody.
    """
    try:
        _require_private(path)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = _File.model_validate(content).keys
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"the key file cannot be read: {error}", where=str(path)) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        raise SpecError(
            f"{place}: {first['msg']}", where=str(path), hint="write it with toolkit keys add"
        ) from None
    found = {each.id: each for each in entries}
    if len(found) < len(entries):
        raise SpecError("two keys have the same id", where=str(path))
    return found


def _require_private(path: Path) -> None:
    mode = path.stat().st_mode
    problem = "may be changed by others" if mode & (stat.S_IWGRP | stat.S_IWOTH) else ""
    if mode & stat.S_IROTH:
        problem = "is readable by everybody"
    if problem:
        raise SpecError(f"the key file {problem}", where=str(path), hint=f"chmod 600 {path}")


def write(path: Path, entries: dict[str, Key]) -> None:
    """Replace the file, readable by its owner alone; a link stays one.

    Raises:
        SpecError: it cannot be written.
    """
    rows = [each.model_dump(mode="json", exclude_defaults=True) for each in entries.values()]
    try:
        path = path.resolve()
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        # What lies there under this name is not ours: neither its mode nor where it leads.
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - for its mode
            yaml.safe_dump({"keys": rows}, file, sort_keys=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise SpecError(f"the key file cannot be written: {error}", where=str(path)) from None


@contextlib.contextmanager
def editing(path: Path) -> Iterator[dict[str, Key]]:
    """The entries of a file that need not be there, to be changed in place, by one at a time.

    Nothing is written where the block raises.

    Raises:
        SpecError: as :func:`read` and :func:`write`.
    """
    with contextlib.ExitStack() as held:
        try:
            folder = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
            held.callback(os.close, folder)
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError as error:
            raise SpecError(f"the key file cannot be written: {error}", where=str(path)) from None
        entries = read(path) if path.exists() else {}
        yield entries
        write(path, entries)


class KeyRing:
    """The keys of a file; a changed file is read again, so that keys come and go without restart.

    Raises:
        SpecError: as :func:`read`, at the start. Later a broken file keeps the keys as they were.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Before it is read: what changes meanwhile is read again.
        self._seen = self._stamp()
        self._keys = read(path)

    def find(self, text: str) -> Key | None:
        """The entry that ``text`` is the key of. Takes as long for a wrong secret as a right."""
        self._refresh()
        match = _KEY.fullmatch(text)
        entry = self._keys.get(match[1]) if match else None
        expected = entry.sha256 if entry else _NOBODY
        same = hmac.compare_digest(_digest(text), expected)
        return entry if same and entry else None

    def _refresh(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = read(self._path)
        except SpecError as error:
            _LOG.warning("%s: %s; the keys stay as they were", error.message, self._path)

    def _stamp(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
