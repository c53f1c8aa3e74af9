"""JSON on stdout is JSON, whatever the figures are."""

from __future__ import annotations

import json

import pytest

from toolkit.cli.app import run
from toolkit.cli.output import print_json


def test_numbers_that_json_lacks_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"use": float("nan"), "most": [float("inf"), 1.5, (2, -float("inf"))], "name": "x"})
    text = capsys.readouterr().out
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert found == {"use": None, "most": [None, 1.5, [2, None]], "name": "x"}


def test_text_that_is_no_unicode_is_still_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"path": "odd-\udcff", "text": "Grüße"})
    assert json.loads(capsys.readouterr().out)["text"] == "Grüße"


def test_a_log_and_json_do_not_share_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", "none.yaml", "--foreground", "--json"]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "--foreground shows the server's log" in json.loads(seen.err)["error"]["message"]
