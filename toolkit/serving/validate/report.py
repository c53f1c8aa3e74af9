"""What the checks found, as a verdict, JSON and JUnit XML."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit import junit
from toolkit.errors import ValidationFailed
from toolkit.serving.validate.check import Result


@dataclass(frozen=True)
class ValidationReport:
    """All results of one server."""

    name: str
    url: str
    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    @property
    def passed(self) -> bool:
        """Whether none failed."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """For ``--json`` and the artifacts of a CI step."""
        return {
            "name": self.name,
            "url": self.url,
            "passed": self.passed,
            "checks": [asdict(result) for result in self.results],
        }

    def raise_if_failed(self) -> None:
        """The CI gate.

        Raises:
            ValidationFailed: a check failed; ``details`` has each with its hint.
        """
        if self.failures:
            raise ValidationFailed(
                f"{len(self.failures)} of {len(self.results)} checks of {self.name} failed",
                where=self.url,
                hint=self.failures[0].hint,
                details=[f"{each.name}: {each.evidence}" for each in self.failures],
            )


def junit_xml(report: ValidationReport) -> str:
    """``report`` as a JUnit test suite."""
    return junit.junit_xml(*_suite(report))


def write_junit(report: ValidationReport, path: Path) -> None:
    """Write :func:`junit_xml` to ``path``, making its directory."""
    junit.write_junit(path, *_suite(report))


def _suite(report: ValidationReport) -> tuple[str, str, list[junit.Case]]:
    cases = [
        junit.Case(
            result.name,
            result.outcome,
            result.evidence,
            f"should prove that {result.proves}\nhint: {result.hint}"
            if result.outcome == "failed"
            else "",
            result.seconds,
        )
        for result in report.results
    ]
    return f"toolkit validate {report.name}", f"validate.{report.name}", cases
