"""What the checks found, as a verdict, JSON and JUnit XML."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

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
    """``report`` as a JUnit test suite, the form that CI systems read."""
    skipped = sum(result.outcome == "skipped" for result in report.results)
    suite = ElementTree.Element(
        "testsuite",
        name=f"toolkit validate {report.name}",
        tests=str(len(report.results)),
        failures=str(len(report.failures)),
        errors="0",
        skipped=str(skipped),
        time=f"{sum(result.seconds for result in report.results):.3f}",
    )
    for result in report.results:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"validate.{report.name}",
            name=result.name,
            time=f"{result.seconds:.3f}",
        )
        evidence = _printable(result.evidence)
        if result.outcome == "failed":
            failure = ElementTree.SubElement(case, "failure", message=evidence)
            failure.text = f"should prove that {result.proves}\nhint: {result.hint}"
        elif result.outcome == "skipped":
            ElementTree.SubElement(case, "skipped", message=evidence)
        else:
            ElementTree.SubElement(case, "system-out").text = evidence
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def write_junit(report: ValidationReport, path: Path) -> None:
    """Write :func:`junit_xml` to ``path``, making its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(junit_xml(report), encoding="utf-8")


def _printable(text: str) -> str:
    """XML 1.0 has no place for control characters, which model output may hold."""
    return "".join(
        each if each in "\t\n" or (each >= " " and each not in "\ufffe\uffff") else "\ufffd"
        for each in text
        if not "\ud800" <= each <= "\udfff"
    )
