"""Write a report's files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from toolkit.bench.html import render_html
from toolkit.bench.markdown import render_markdown
from toolkit.bench.report import SCHEMA_VERSION, BenchReport
from toolkit.errors import EnvironmentError_, SpecError


def write_report(report: BenchReport, folder: Path) -> tuple[Path, ...]:
    """Write ``report.json``, ``report.md`` and ``report.html`` into ``folder``, each at once.

    Raises:
        EnvironmentError_: the folder cannot be written.
    """
    contents = {
        "report.json": report.model_dump_json(indent=1) + "\n",
        "report.md": render_markdown(report),
        "report.html": render_html(report),
    }
    return write_files(contents, folder)


def write_files(contents: Mapping[str, str], folder: Path) -> tuple[Path, ...]:
    """Write texts by name into ``folder``, each at once; the paths in that order.

    Raises:
        EnvironmentError_: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            temporary = folder / f".{name}.{os.getpid()}"
            temporary.write_text(content, encoding="utf-8")
            temporary.replace(folder / name)
    except OSError as error:
        raise EnvironmentError_(
            f"the report cannot be written: {error.strerror}", where=str(folder)
        ) from error
    return tuple(folder / name for name in contents)


def read_report(path: Path) -> BenchReport:
    """A report from its JSON file (or the folder that holds ``report.json``).

    Raises:
        SpecError: there is none, or it is not a report of this schema.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        text = file.read_bytes()
        version = _Versioned.model_validate_json(text).schema_version
        if version == SCHEMA_VERSION:
            return BenchReport.model_validate_json(text)
    except OSError as error:
        raise SpecError(f"no report: {error.strerror}", where=str(file)) from error
    except ValueError as error:
        raise SpecError("not a benchmark report of this version", where=str(file)) from error
    raise SpecError(
        f"the report has schema {version}, this toolkit reads {SCHEMA_VERSION}",
        where=str(file),
        hint="use the version of the toolkit that wrote it, or measure anew",
    )


class _Versioned(BaseModel):
    """What every report tells, whatever else is in it."""

    schema_version: int = SCHEMA_VERSION
