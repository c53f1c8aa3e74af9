"""What a check of a repository has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One problem: ``where`` is a file below the repository, with line and column if known."""

    where: str
    message: str
    severity: Literal["error", "warning"] = "error"
    hint: str | None = None
