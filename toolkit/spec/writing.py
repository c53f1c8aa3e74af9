"""Deployments as YAML that :mod:`toolkit.spec.loading` reads back, and files put in place whole."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from toolkit.errors import EnvironmentError_, SpecError, ToolkitError, is_of_the_machine
from toolkit.spec.document import Json, resolve_scalar
from toolkit.spec.interpolation import escape
from toolkit.spec.models import Deployment

_PLAIN = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./@+~-]*(:[A-Za-z0-9_./@+~-]+)*")
_TEXT = "tag:yaml.org,2002:str"


def to_yaml(deployment: Deployment) -> str:
    """The whole deployment, defaults included; loading it gives an equal one."""
    return "".join(_lines(deployment.model_dump(mode="json", exclude_none=True), 0))


def scalar(value: Json) -> str:
    """One value on one line: a text in quotes where it needs them, ``$`` doubled."""
    if isinstance(value, str):
        text = escape(value)
        return text if _PLAIN.fullmatch(text) and _stays_text(text) else _quoted(text)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{scalar(key)}: {scalar(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, Sequence):
        return f"[{', '.join(scalar(item) for item in value)}]"
    return json.dumps(value)


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Put ``text`` into ``path``: whole or not at all.

    Raises:
        SpecError: the file exists and ``force`` is false, or it has no folder.
        EnvironmentError_: it cannot be written there.
    """
    if path.is_dir():
        raise SpecError("this is a folder", where=str(path), hint="name a file in it")
    if path.exists() and not force:
        _refuse_existing(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _refused(error, f"cannot write into {path.parent}", path) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        if force or not _linked(path, temporary):
            temporary.replace(path)
    except OSError as error:
        raise _refused(error, "cannot be written", path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _refused(error: OSError, what: str, path: Path) -> ToolkitError:
    kind = EnvironmentError_ if is_of_the_machine(error) else SpecError
    return kind(
        f"{what}: {error.strerror or type(error).__name__}",
        where=str(path),
        hint="--output names another file",
    )


def _linked(path: Path, temporary: Path) -> bool:
    """Link ``path`` to the file: unlike a rename, that fails on one that has just appeared."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        _refuse_existing(path)
    except OSError:  # a file system without links
        return False
    return True


def _refuse_existing(path: Path) -> None:
    raise SpecError(
        "the file exists already", where=str(path), hint="--force overwrites it, --output renames"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _stays_text(text: str) -> bool:
    """Neither YAML 1.2 nor an older reader (YAML 1.1: yes, 1_000, 12:30) takes it for a value."""
    older = yaml.resolver.Resolver().resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return resolve_scalar(text) == text and older == _TEXT and text.lower() not in ("y", "n")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    shown = (c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped)
    return f'"{"".join(shown)}"'


def _lines(data: Mapping[str, Json], depth: int) -> list[str]:
    lines = []
    for key, value in data.items():
        start = f"{'  ' * depth}{scalar(key)}:"
        if isinstance(value, Mapping) and value:
            lines += [f"{start}\n", *_lines(value, depth + 1)]
        else:
            lines.append(f"{start} {scalar(value)}\n")
    return lines
