"""``toolkit keys``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.cli.app import run
from toolkit.gateway.guard.keys import KeyRing


def test_add_list_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "keys.yaml")
    assert run(["keys", "add", "a", "--file", file]) == 0
    text = capsys.readouterr().out.strip()
    options = ["--class", "batch", "--model", "chat", "--tokens-per-minute", "500", "--json"]
    assert run(["keys", "add", "b", "--file", file, *options]) == 0
    other = json.loads(capsys.readouterr().out)["key"]
    ring = KeyRing(tmp_path / "keys.yaml")
    found = ring.find(text), ring.find(other)
    assert [each and each.id for each in found] == ["a", "b"]
    assert run(["keys", "list", "--file", file, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in listed] == ["a", "b"]
    assert listed[1]["request_class"] == "batch"
    assert listed[1]["limits"]["tokens_per_minute"] == 500
    assert "sha256" not in str(listed)
    assert run(["keys", "list", "--file", file]) == 0
    assert "tokens per minute 500" in " ".join(capsys.readouterr().out.split())
    assert run(["keys", "remove", "a", "--file", file]) == 0
    assert ring.find(text) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "A"], "cannot name a key"),
        (["add", "taken"], "there is a key taken already"),
        (["add", "a", "--class", "Not A Class"], "request_class"),
        (["remove", "b"], "there is no key b"),
    ],
)
def test_mistakes(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "keys.yaml")
    assert run(["keys", "add", "taken", "--file", file]) == 0
    before = (tmp_path / "keys.yaml").read_bytes()
    assert run(["keys", *arguments, "--file", file]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "keys.yaml").read_bytes() == before


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "add", "a", "--file", str(tmp_path / "none" / "keys.yaml")]) == 2
    told = capsys.readouterr()
    assert "cannot be written" in told.err
    assert told.out == ""
