"""``toolkit gateway``: what it refuses before it serves anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.cli.app import run


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "opens the gateway to the network without API keys"),
        (["--host", "::"], "opens the gateway to the network without API keys"),
        (["--host", "a b"], "--host"),
        (["--replica", "nonsense"], "--replica"),
        (["--replica", "127.0.0.1:1/99999"], "port that does not exist"),
    ],
)
def test_options_are_judged_like_the_file(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text("name: chat\nmodel: {source: ./m}\n")
    replica = [] if "--replica" in words else ["--replica", "127.0.0.1:1"]
    tokenizer = ["--tokenizer", str(tmp_path)]
    assert run(["gateway", str(file), *words, *replica, *tokenizer]) == 2
    found = capsys.readouterr().err
    assert told in found
    assert "bug in the toolkit" not in found


@pytest.mark.parametrize("address", ["a:0", "a:65536", "a:1/70000"])
def test_a_port_that_does_not_exist_is_refused_in_the_file(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(f"name: chat\nmodel: {{source: ./m}}\ngateway: {{replicas: ['{address}']}}\n")
    assert run(["gateway", str(file)]) == 2
    assert "gateway.replicas[0] must be host:port" in capsys.readouterr().err
