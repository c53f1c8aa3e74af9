"""Write an ablation's files, and read them again."""

from __future__ import annotations

from pathlib import Path

from toolkit.bench.ablation.html import render_html
from toolkit.bench.ablation.markdown import render_markdown
from toolkit.bench.ablation.report import AblationReport
from toolkit.bench.files import write_files
from toolkit.errors import SpecError

NAME = "ablation"


def write_ablation(report: AblationReport, folder: Path) -> tuple[Path, ...]:
    """Write ``ablation.json``, ``.md`` and ``.html`` into ``folder``, each at once.

    Raises:
        EnvironmentError_: the folder cannot be written.
    """
    contents = {
        f"{NAME}.json": report.model_dump_json(indent=1) + "\n",
        f"{NAME}.md": render_markdown(report),
        f"{NAME}.html": render_html(report),
    }
    return write_files(contents, folder)


def read_ablation(path: Path) -> AblationReport:
    """An ablation from its JSON file, or the folder that holds it.

    Raises:
        SpecError: there is none, or it is none of this schema.
    """
    file = path / f"{NAME}.json" if path.is_dir() else path
    try:
        return AblationReport.model_validate_json(file.read_bytes())
    except OSError as error:
        raise SpecError(f"no ablation: {error.strerror}", where=str(file)) from error
    except ValueError as error:
        raise SpecError("not an ablation of this version", where=str(file)) from error
