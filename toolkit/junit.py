"""JUnit XML, the form in which CI systems take verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from toolkit.errors import EnvironmentError_

Outcome = Literal["passed", "failed", "error", "skipped"]
_ELEMENTS = {"failed": "failure", "error": "error", "skipped": "skipped"}


@dataclass(frozen=True)
class Case:
    """One thing that was judged. ``message`` says in a line why it came out so, ``text`` more.

    ``error`` is for what could not be judged.
    """

    name: str
    outcome: Outcome
    message: str
    text: str = ""
    seconds: float = 0.0


def junit_xml(suite: str, group: str, cases: Sequence[Case]) -> str:
    """The document of one test suite; ``group`` is the class name of its cases."""
    element = ElementTree.Element(
        "testsuite",
        name=_printable(suite),
        tests=str(len(cases)),
        failures=str(_count(cases, "failed")),
        errors=str(_count(cases, "error")),
        skipped=str(_count(cases, "skipped")),
        time=f"{sum(case.seconds for case in cases):.3f}",
    )
    for case in cases:
        found = ElementTree.SubElement(
            element,
            "testcase",
            classname=_printable(group),
            name=_printable(case.name),
            time=f"{case.seconds:.3f}",
        )
        message = _printable(case.message)
        if case.outcome == "passed":
            ElementTree.SubElement(found, "system-out").text = message
        else:
            below = ElementTree.SubElement(found, _ELEMENTS[case.outcome], message=message)
            below.text = _printable(case.text) or None
    root = ElementTree.Element("testsuites")
    root.append(element)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def write_junit(path: Path, suite: str, group: str, cases: Sequence[Case]) -> None:
    """Write :func:`junit_xml` to ``path``, making its directory.

    Raises:
        EnvironmentError_: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(junit_xml(suite, group, cases), encoding="utf-8")
    except OSError as error:
        raise EnvironmentError_(
            f"the JUnit report cannot be written: {error.strerror}", where=str(path)
        ) from error


def _count(cases: Sequence[Case], outcome: str) -> int:
    return sum(case.outcome == outcome for case in cases)


def _printable(text: str) -> str:
    """XML 1.0 has no place for control characters, which model output may hold."""
    return "".join(
        each if each in "\t\n" or (each >= " " and each not in "\ufffe\uffff") else "\ufffd"
        for each in text
        if not "\ud800" <= each <= "\udfff"
    )
