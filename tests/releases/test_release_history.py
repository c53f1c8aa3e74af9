"""A changed table changes only the releases that it is meant to change."""

from __future__ import annotations

import pytest
from release_history import SECTIONS, facts, history, kept

from toolkit.releases import known_releases


@pytest.mark.parametrize("section", ["release", *SECTIONS])
def test_every_name_is_in_the_releases_that_are_written_down(section: str) -> None:
    found, wanted = history(section), kept(section)
    lost, new = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    assert not lost, "read these against the sources, then run release_history.py"
    assert not new
    assert found == wanted


@pytest.mark.parametrize("section", SECTIONS)
def test_a_name_is_told_once_for_a_release(section: str) -> None:
    for known in known_releases():
        names = [fact.partition(": ")[0] for fact in facts(known, section)]
        assert len(names) == len(set(names)), known.version
        content = known.llm_args.classes if section == "llm_args" else getattr(known, section)
        assert bool(names) == bool(content), known.version
