"""What each release has, by name: the tables turned round.

A table states its differences from another one, so one changed line can reach five releases. Here
every name stands once with all that is known of it and the releases where that holds, so such a
reach is seen. ``PYTHONPATH=. python tests/releases/release_history.py`` writes ``history/`` anew;
every line of a difference wants to be read against the release's sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.releases import Release, known_releases, known_versions

FOLDER = Path(__file__).parent / "history"
SECTIONS = ("containers", "build_flags", "llm_args", "speculation_methods", "formats",
            "triton_models", "metrics", "terms")  # fmt: skip
PROSE = frozenset({"meaning", "note", "notes", "sources", "commit", "released"})
"""What explains, or says where something was read."""


def history(section: str) -> list[str]:
    """One line for each name and state of it: ``name: what | releases``."""
    held: dict[str, list[str]] = {}
    for known in known_releases():
        for fact in facts(known, section):
            held.setdefault(fact, []).append(known.version)
    return sorted(f"{fact} | {_span(versions)}" for fact, versions in held.items())


def facts(known: Release, section: str) -> Iterator[str]:
    """``name: what`` of one release; section ``release`` is the release itself."""
    if section == "release":
        own = known.model_dump(mode="json", exclude={*SECTIONS, "sources"})
        yield f"{own.pop('version')}: {_said(own)}"
        return
    content = known.model_dump(mode="json", include={section}, exclude_defaults=True)[section]
    entries = content["classes"] if section == "llm_args" else content
    for entry in entries:
        yield from _entry("", entry)


def _entry(above: str, entry: Mapping[str, Any]) -> Iterator[str]:
    name = above + str(entry.get("name") or entry.get("model"))
    nested = {key: value for key, value in entry.items() if _entries(value)}
    yield f"{name}: {_said({k: v for k, v in entry.items() if k not in {*nested, 'name'}})}"
    for key, below in nested.items():
        # That a step comes before another is a fact too.
        order = key == "steps"
        for number, each in enumerate(below, 1):
            yield from _entry(f"{name} {key} {f'{number} ' * order}", each)


def _entries(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _said(content: Mapping[str, Any]) -> str:
    said = []
    for key, value in content.items():
        if key in PROSE:
            continue
        if key == "cautions":  # the words are prose, not what they warn of
            value = sorted(value)
        said.append(f"{key}={json.dumps(value, ensure_ascii=False)}")
    return " ".join(said)


def _span(versions: list[str]) -> str:
    """``all``, or runs of releases that follow each other."""
    order = known_versions()
    if len(versions) == len(order):
        return "all"
    runs: list[list[str]] = []
    for version in versions:
        if runs and order.index(version) == order.index(runs[-1][-1]) + 1:
            runs[-1].append(version)
        else:
            runs.append([version])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def kept(section: str) -> list[str]:
    """What is written in ``history/``."""
    return (FOLDER / f"{section}.txt").read_text(encoding="utf-8").splitlines()


def rewrite() -> None:
    """Write everything anew."""
    FOLDER.mkdir(exist_ok=True)
    for section in ("release", *SECTIONS):
        text = "".join(f"{line}\n" for line in history(section))
        (FOLDER / f"{section}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()
