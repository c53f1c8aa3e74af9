"""Versions of Python packages: those that pyproject.toml declares, compared as numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolkit.doctor import checks_software
from toolkit.doctor.checks_software import PACKAGES, Package

ROOT = Path(__file__).parents[2]


def declared() -> set[str]:
    text = (ROOT / "pyproject.toml").read_text()
    found = re.findall(r'^\s*"([A-Za-z0-9_\-\[\],]+[^"]*)",?', text, re.MULTILINE)
    listed = re.findall(r"^\w+ = \[(.*)\]", text, re.MULTILINE)
    found += [item.strip('" ') for line in listed for item in re.split(r'",\s*"', line)]
    return {item.strip('"') for item in found}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_versions_are_those_of_pyproject(package: Package) -> None:
    assert package.requirement in declared()


@pytest.mark.parametrize(
    ("version", "fits"),
    [("1.26.4", True), ("1.25.9", False), ("2.0.0", False), ("2.1", False), ("1.30rc1", True)],
)
def test_numpy_below_two(version: str, fits: bool) -> None:
    numpy = next(package for package in PACKAGES if package.name == "numpy")
    assert numpy.fits(version) is fits


def test_local_versions_count_by_their_numbers() -> None:
    torch = next(package for package in PACKAGES if package.name == "torch")
    assert torch.fits("2.13.0+cpu")
    assert not torch.fits("2.5.1+cu121")


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.doctor import examine

    monkeypatch.setattr(checks_software, "installed", lambda name: None)
    report = examine()
    (found,) = (each for each in report.findings if each.name == "python packages")
    assert found.status == "warn"
    assert "[cpu,quantize]" in found.mend
