"""Links that have plain names to directories that do not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from toolkit.errors import EnvironmentError_
from toolkit.serving.plain_paths import is_plain, plain_way


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.mark.parametrize("name", ["my dir", "a;b", "a$(b)", "it's", "a&b", 'a"b', "a*b", "größe"])
def test_every_special_character_gets_a_link(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.mkdir()
    way = plain_way(target)
    assert is_plain(way)
    assert way.resolve() == target
    assert plain_way(target) == way


def test_plain_path_is_its_own_way(tmp_path: Path, temporary: Path) -> None:
    assert plain_way(tmp_path) == tmp_path
    assert list(temporary.iterdir()) == []


def test_links_to_what_is_gone_are_removed(tmp_path: Path) -> None:
    gone, here = tmp_path / "not here", tmp_path / "is here"
    gone.mkdir()
    here.mkdir()
    old = plain_way(gone)
    gone.rmdir()
    plain_way(here)
    assert not old.is_symlink()


def test_folder_that_others_can_write_is_not_trusted(tmp_path: Path) -> None:
    target = tmp_path / "my dir"
    target.mkdir()
    plain_way(target).parent.chmod(0o777)
    with pytest.raises(EnvironmentError_, match="somebody else"):
        plain_way(target)


def test_temporary_directory_with_a_space_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "my tmp"))
    with pytest.raises(EnvironmentError_, match="TMPDIR"):
        plain_way(tmp_path / "my dir")
