"""What a repository's text files must not hold, and which code the server can import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toolkit.repository.contents import foreign_imports, secrets_in, tokenizer_findings
from toolkit.repository.findings import Finding
from toolkit.repository.layout import VERSION

_UNFILLED = ("${", "{{", "{%", "@@")
_CONFIGURATION = ("config.pbtxt", "model.yaml", "settings.json")
_MODULES = frozenset({"tensorrt_llm", "yaml"})
"""Beside those of every runtime: what NVIDIA's image has."""


def text_findings(repository: Path) -> Iterator[Finding]:
    """Secrets, variables that no template filled, foreign imports, missing files."""
    yield from secrets_in(repository)
    for file in sorted(repository.rglob("*")):
        if file.name in _CONFIGURATION and file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            for mark in _UNFILLED:
                if mark in text:
                    place = str(file.relative_to(repository))
                    yield Finding(place, f"holds {mark!r}: a template variable was not filled in")
    for model in sorted(each for each in repository.iterdir() if each.is_dir()):
        version = model / VERSION
        if (version / "model.py").is_file():
            yield from foreign_imports(repository, version, _MODULES)
            yield from tokenizer_findings(repository, version / "tokenizer" / "tokenizer.json")
